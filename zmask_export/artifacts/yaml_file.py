"""Specs that people write: YAML files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zmask_export.errors import InputError, UsageError
from zmask_export.spec import AnySpec, explain


def load_yaml(
    path: Path, kind: type[AnySpec], what: str, context: Mapping[str, Any] | None = None
) -> AnySpec:
    """Read a spec from a YAML file. Validators find the file's folder in their context.

    Args:
        path: the file.
        kind: the spec's class.
        what: what messages call it.
        context: what validators find there besides.

    Raises:
        UsageError: no such file.
        InputError: not YAML, or a field is missing, unknown or out of range (named).
    """
    import yaml  # here, because running a bundle needs none

    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"The {what} {path} cannot be read.", fix=f"Give the path of a YAML {what} file."
        ) from exc
    try:
        content = yaml.safe_load(text)
    except Exception as exc:  # PyYAML's constructors raise whatever a wrong value leads to
        raise InputError(
            f"The {what} {path} is not valid YAML ({' '.join(str(exc).split())}).",
            fix="Correct the file; the README and the shipped files show the form.",
        ) from exc
    try:
        return kind.model_validate(content, context={"folder": path.parent, **(context or {})})
    except ValidationError as exc:
        raise InputError(
            f"The {what} {path} is wrong: {explain(exc)}.",
            fix="Correct the named field; the README and the shipped files show the form.",
        ) from exc

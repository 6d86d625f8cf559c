"""safetensors files that carry a JSON header of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from zmask_export.errors import ZMaskError
from zmask_export.spec import explain


class Header(Protocol):
    """A spec with the version of the format that it describes."""

    format_version: int

    @classmethod
    def model_validate_json(cls, json_data: str) -> Any:
        """Parse and check."""
        ...


AnyHeader = TypeVar("AnyHeader", bound=Header)


def read_headed(
    data: bytes,
    key: str,
    header: type[AnyHeader],
    version: int,
    *,
    foreign: str,
    bad: Callable[[str], ZMaskError],
) -> tuple[AnyHeader, dict[str, NDArray[Any]]]:
    """Header and tensors of a file's bytes.

    Args:
        data: the file.
        key: metadata entry that holds the header.
        header: its type.
        version: the format version that is read.
        foreign: what to say of a file without that entry.
        bad: makes the error of what is wrong with the file.

    Raises:
        ZMaskError: what ``bad`` makes, for a file that is cut short, foreign or of another version.
    """
    try:
        tensors = load_tensors(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, RecursionError) as exc:
        raise bad("is cut short or no safetensors file") from exc
    if key not in metadata:
        raise bad(foreign)
    try:
        parsed: AnyHeader = header.model_validate_json(metadata[key])
    except ValidationError as exc:
        raise bad(f"has a wrong header: {explain(exc)}") from exc
    if parsed.format_version != version:
        raise bad(f"has format version {parsed.format_version}, not {version}")
    return parsed, tensors

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationInfo, field_validator

from zmask_export.artifacts.yaml_file import load_yaml
from zmask_export.spec import Spec

seen: list[Any] = []


class Sample(Spec):
    """Notes what its validators find in their context."""

    name: str

    @field_validator("name")
    @classmethod
    def _note(cls, name: str, info: ValidationInfo) -> str:
        seen.append(info.context)
        return name


@pytest.mark.parametrize("context", [None, {"model": "icnet"}])
def test_validators_find_the_folder_and_what_they_were_given(
    context: dict[str, Any] | None, tmp_path: Path
) -> None:
    seen.clear()
    (tmp_path / "sample.yaml").write_text("name: grün", "utf-8")
    assert load_yaml(tmp_path / "sample.yaml", Sample, "sample", context).name == "grün"
    assert seen == [{"folder": tmp_path} | (context or {})]

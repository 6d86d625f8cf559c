"""The benchmark runs on a network that exports in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drawn import PRESET
from tests.small import CLASSES, PATHS, PREPROCESS, TinySegmenter
from zmask_export.models import registry
from zmask_export.models.registry import ModelEntry

ENTRY = ModelEntry(
    name="tiny",
    factory=TinySegmenter,
    classes=CLASSES,
    preprocess=PREPROCESS,
    taps=dict(PATHS),
    shallow=("stem", "mid"),
    deep=("mid", "tip"),
    min_side=16,
    classes_from="head.weight",
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The preset of a network ``tiny``, which is registered meanwhile."""
    preset = tmp_path_factory.mktemp("bench") / "preset.yaml"
    preset.write_text(PRESET, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._ENTRIES, ENTRY.name, ENTRY)
        yield preset

"""Finding the presets, weights, calibrations and patches that are shipped under ``calib/``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zmask_export.artifacts.yaml_file import load_yaml
from zmask_export.errors import UsageError
from zmask_export.spec import Preset

_PACKAGED = Path(__file__).parent / "calib"
_CHECKOUT = Path(__file__).parent.parent / "calib"

PAPER = {"segmentation": "paper/segmentation.yaml", "detection": "paper/detection.yaml"}
"""Presets by name that belong to no network."""


@dataclass(frozen=True)
class Shipped:
    """A preset and the files that belong to it; None where it brings none."""

    preset: Preset
    weights: Path | None
    calibration: Path | None
    patch: Path | None
    fit_patch: Path | None = None

    def settings_alone(self) -> Shipped:
        """Without the files, which belong to the preset's own weights."""
        return Shipped(self.preset, None, None, None)


def folder() -> Path:
    """Where the shipped files lie: inside the installed package, or in the checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def find(model: str, name: str | None = None) -> Shipped:
    """A preset with its files.

    Args:
        model: the network.
        name: a path to a YAML file, "paper" (segmentation), or None for the network's own preset.

    Raises:
        UsageError: there is no such preset.
        InputError: the file is wrong.
    """
    if name is None:
        path = folder() / model / "preset.yaml"
    elif name == "paper":
        path = folder() / PAPER["segmentation"]
    elif name in PAPER:
        path = folder() / PAPER[name]
    else:
        path = Path(name)
    if not path.is_file():
        raise UsageError(
            f"There is no preset {name or model!r}.",
            fix=f"Give the path of a YAML file, or one of: paper, {', '.join(sorted(PAPER))}.",
        )
    preset = load_preset(path)
    return Shipped(
        preset,
        _beside(path, preset.weights),
        _beside(path, preset.calibration),
        _beside(path, preset.patch),
        _beside(path, preset.fit_patch),
    )


def _beside(path: Path, name: str | None) -> Path | None:
    return None if name is None else path.parent / name


def load_preset(path: Path) -> Preset:
    """Read a preset file; see :func:`zmask_export.artifacts.yaml_file.load_yaml`."""
    return load_yaml(path, Preset, "preset")

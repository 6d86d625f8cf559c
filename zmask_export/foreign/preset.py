"""Presets of networks of one's own: what is left out is derived from the input size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from zmask_export.artifacts.yaml_file import load_yaml
from zmask_export.errors import UsageError
from zmask_export.spec import (
    PositiveTriple,
    Preprocess,
    Preset,
    Size,
    Tolerances,
    Triple,
    explain,
)

LONGEST_GRID = 200
"""Cells of the grid's longer side at most; the shipped presets have as many."""
_CELLS_A_PIXEL = 5 / 12
_SHALLOW = (0.106, 0.054, 0.026)
_DEEP = (0.054, 0.026, 0.0145)
"""Kernels over the grid's sides, as the shipped presets have them."""
_CORNERS = 0.12
_TOLERANCES = Tolerances(
    logits_atol=1e-3,
    logits_rtol=1e-3,
    logits_outliers=0.001,
    score_rtol=1e-4,
    mask_iou=0.999,
    heatmap_rtol=1e-4,
)


class OwnPreset(Preset):
    """A preset that may leave out everything, and may say what a registered network's entry says.

    Validation finds ``size`` in its context: the input size that the user gave, or None, and
    ``fallback``: the size that the network has by itself, or None.

    Attributes:
        mean, std: normalisation of RGB in [0, 1], both or neither.
        bgr: see Preprocess.
        classes: names of the classes, in the order of the logits' channels.
        outputs: names for the network's outputs, see ``foreign.outputs``.
    """

    mean: Triple | None = None
    std: PositiveTriple | None = None
    bgr: bool = False
    classes: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    outputs: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any, info: ValidationInfo) -> Any:
        if data is None:
            data = {}
        if not isinstance(data, dict):
            return data
        context = info.context or {}
        size = context.get("size") or data.get("input_size") or context.get("fallback")
        if size is None:
            raise ValueError("input_size is missing, and the network does not say it")
        try:
            h, w = (int(side) for side in size)
        except (TypeError, ValueError):
            h, w = 0, 0
        if min(h, w) < 1:
            return {**derived((1, 1)), **data}  # the field's own check says what is wrong
        return {**derived((h, w)), **data, "input_size": (h, w)}

    @model_validator(mode="after")
    def _pair(self) -> OwnPreset:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together")
        if self.weights is not None:
            raise ValueError("weights: a network of one's own brings its weights itself")
        return self

    @property
    def preprocess(self) -> Preprocess | None:
        """The normalisation; None where the preset names none."""
        if self.mean is None or self.std is None:
            return None
        return Preprocess(mean=self.mean, std=self.std, bgr=self.bgr)


def derived(size: Size) -> dict[str, Any]:
    """The fields of a preset for inputs of ``size``, the shipped presets' settings scaled to it."""
    scale = min(_CELLS_A_PIXEL, LONGEST_GRID / max(size))
    grid = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))

    def kernels(shares: tuple[float, ...]) -> tuple[Size, ...]:
        return tuple(
            (max(1, round(grid[0] * share)), max(1, round(grid[1] * share))) for share in shares
        )

    return {
        "about": f"Derived from an input of {size[0]} x {size[1]}.",
        "input_size": size,
        "shallow_kernels": kernels(_SHALLOW),
        "deep_kernels": kernels(_DEEP),
        "grid": grid,
        "registration": "aligned",
        "fill": "mean",
        "corners": round(max(grid) * _CORNERS),
        "tolerances": {"fp32": _TOLERANCES.model_dump(exclude_none=True)},
    }


def own_preset(path: Path | None, size: Size | None, fallback: Size | None = None) -> OwnPreset:
    """The preset of a network of one's own.

    Args:
        path: a YAML file, or None.
        size: input (H, W) that the user gave; None takes the file's.
        fallback: what the network says about its input; None where it takes any.

    Raises:
        UsageError: no such file, or nobody says the input size.
        InputError: the file is wrong.
    """
    context = {"size": size, "fallback": fallback}
    if path is not None:
        return load_yaml(path, OwnPreset, "preset", context)
    try:
        return OwnPreset.model_validate({}, context=context)
    except ValidationError as exc:
        raise UsageError(
            f"The size of the input is not known ({explain(exc)}).",
            fix="Give --input-size HxW, or input_size in a preset.",
        ) from exc

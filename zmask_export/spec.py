"""Frozen, validated descriptions that the stages hand to each other.

Sizes are (height, width) everywhere.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from zmask_export.errors import UsageError


class Spec(BaseModel):
    """Base of all specs: frozen, and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnySpec = TypeVar("AnySpec", bound=Spec)

Triple = tuple[float, float, float]
Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""From 0 on. Infinity would switch off what it bounds."""
FiniteTriple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveTriple = tuple[Positive, Positive, Positive]
MAX_SIDE = 16384
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Size = tuple[Side, Side]
Reach = Annotated[int, Field(ge=0, le=MAX_SIDE)]

Registration = Literal["paper", "aligned"]
"""How a pooled map is laid back onto the grid."""
Fill = Literal["black", "mean"]
"""What a covered pixel becomes: black, as in the paper, or the normalisation mean."""
Task = Literal["segmentation", "detection", "other"]
"""What a network predicts: a class for every pixel, boxes, or something that is kept as it is."""
Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8"]
"""What a network computes in; Z-Mask itself always computes in float32. tf32 is a float32 graph whose
engine may round the factors of a product to 10 bits."""
Contract = Literal["fp32", "fp16", "bf16", "int8"]
"""What tolerances are stated for."""
KEPT = "/float32"
"""End of the names of those products of a network of lower precision that stay float32."""
SMALLEST_STD = 2.0**-126
"""A channel with a smaller standard deviation is dead: its inverse may be no float32."""
DETECTION_OUTPUTS = ("boxes", "scores", "labels", "count")
"""Outputs of every detector: float32 (N, K, 4), float32 (N, K), int64 (N, K), int64 (N,)."""


class Policy(str, Enum):
    """What the engine does with the mask.

    - ``detect``: one pass; the prediction of the unmasked image, with flag and mask.
    - ``mask``: always a second pass on the covered image, the paper's f(x * M).
    - ``gated``: the second pass only where an image of the batch is flagged.
    """

    DETECT = "detect"
    MASK = "mask"
    GATED = "gated"


class Preprocess(Spec):
    """Normalisation in front of a network: (x - mean) / std per channel, x RGB in [0, 1].

    With ``bgr`` the channels are swapped first, and mean and std are given in BGR order.

    Attributes:
        mean: of each channel.
        std: of each channel, above 0.
        bgr: whether the network takes BGR.
    """

    mean: FiniteTriple
    std: PositiveTriple
    bgr: bool = False

    @property
    def rgb_mean(self) -> Triple:
        """The mean in RGB order: the colour that becomes zero, used by ``fill = mean``."""
        return (self.mean[2], self.mean[1], self.mean[0]) if self.bgr else self.mean

    def colour(self, fill: Fill) -> Triple:
        """The RGB colour of covered pixels."""
        return self.rgb_mean if fill == "mean" else (0.0, 0.0, 0.0)


PREPROCESS = {
    "imagenet": Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    # Published ICNet weights: BGR in [0, 255] less the mean, no division.
    "caffe": Preprocess(
        mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
        bgr=True,
    ),
    # torchvision's SSD300: its mean, no division.
    "vgg": Preprocess(mean=(0.48235, 0.45882, 0.40784), std=(1 / 255, 1 / 255, 1 / 255)),
    # As they are: for networks that normalise by themselves, from [0, 1] and from [0, 255].
    "unit": Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "bytes": Preprocess(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)),
}
"""Named normalisations that ``--preprocess`` takes."""


class DefenseSpec(Spec):
    """Everything that shapes Z-Mask, apart from statistics and fitted parameters.

    Attributes:
        shallow: taps of the set S.
        deep: taps of the set D.
        shallow_kernels: average-pooling kernels (h, w) for S on the grid, first to last.
        deep_kernels: the same for D.
        grid: (HR, WR) that all heatmaps have.
        registration: how a pooled map is laid back onto the grid.
        fill: what a covered pixel becomes.
        corners: how far, in cells of the grid, covered cells of a row and of a column reach to cover the
            cell where they meet; 0 leaves the thresholded mask as it is, as in the paper.
    """

    shallow: Annotated[tuple[str, ...], Field(min_length=1)]
    deep: Annotated[tuple[str, ...], Field(min_length=1)]
    shallow_kernels: Annotated[tuple[Size, ...], Field(min_length=1)]
    deep_kernels: Annotated[tuple[Size, ...], Field(min_length=1)]
    grid: Size
    registration: Registration = "paper"
    fill: Fill = "black"
    corners: Reach = 0

    @model_validator(mode="after")
    def _check(self) -> DefenseSpec:
        for label, taps in (("shallow", self.shallow), ("deep", self.deep)):
            if len(set(taps)) != len(taps):
                raise ValueError(f"the {label} taps name a tap twice")
        for kernel in (*self.shallow_kernels, *self.deep_kernels):
            if kernel[0] > self.grid[0] or kernel[1] > self.grid[1]:
                raise ValueError(f"kernel {kernel} is larger than the grid {self.grid}")
        return self

    @property
    def taps(self) -> tuple[str, ...]:
        """All taps, each once: S first, then those of D alone."""
        return tuple(dict.fromkeys((*self.shallow, *self.deep)))

    def branches(self) -> tuple[tuple[str, tuple[str, ...], tuple[Size, ...]], ...]:
        """("shallow", taps, kernels) and ("deep", taps, kernels)."""
        return (
            ("shallow", self.shallow, self.shallow_kernels),
            ("deep", self.deep, self.deep_kernels),
        )


class DetectorLimits(Spec):
    """How many detections a detector gives, and of what; None is the network's own value.

    Attributes:
        detections: K, most detections an image.
        candidates: most candidates that enter the suppression, a level or a class (Faster R-CNN:
            proposals a level).
        score_threshold: a detection with a lower score is none.
        iou_threshold: of two boxes of a class that overlap by more, the surer one stays.
    """

    detections: Annotated[int, Field(ge=1)] | None = None
    candidates: Annotated[int, Field(ge=1)] | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    iou_threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class Tolerances(Spec):
    """The parity contract of one precision. No value has a default.

    Attributes:
        logits_atol: a, in |engine - reference| <= a + r * |reference| for the network's outputs.
        logits_rtol: r of the same.
        logits_outliers: share of output elements that may exceed that bound.
        score_rtol: bound on |d - d_ref| / max(|d_ref|, tiny).
        mask_iou: smallest IoU of covered pixels per image.
        heatmap_rtol: bound on the heatmaps' difference over the reference's maximum.
        boxes_atol, scores_atol: for detectors, how far apart in pixels and in score two detections
            may be that are the same one; ``logits_outliers`` is then the share without a partner.
        predictions: share of an image's pixels whose class may differ; None where the bound on the
            outputs says all.
        auc, quality: how far detection AUC and mIoU (or mAP@0.5) over a labelled data set may be from
            the float32 network's; None for float32 itself.
    """

    logits_atol: Bound
    logits_rtol: Bound
    logits_outliers: Annotated[float, Field(ge=0, le=1)]
    score_rtol: Bound
    mask_iou: Annotated[float, Field(ge=0, le=1)]
    heatmap_rtol: Bound
    boxes_atol: Bound | None = None
    scores_atol: Bound | None = None
    predictions: Annotated[float, Field(ge=0, le=1)] | None = None
    auc: Annotated[float, Field(ge=0, le=1)] | None = None
    quality: Annotated[float, Field(ge=0, le=1)] | None = None


class Preset(Spec):
    """Settings shipped as data under ``calib/``: pooling, grid, sizes, tolerances.

    ``shallow`` and ``deep`` may be left out; the network's own Table 1 sets then apply.
    ``weights`` and what follows name files beside the preset that belong to it: ``patch`` is the one to
    evaluate with, ``fit_patch`` the one that the calibration was fitted on.
    """

    about: str
    input_size: Size
    shallow: tuple[str, ...] | None = None
    deep: tuple[str, ...] | None = None
    shallow_kernels: tuple[Size, ...]
    deep_kernels: tuple[Size, ...]
    grid: Size
    registration: Registration
    fill: Fill
    corners: Reach = 0
    tolerances: Annotated[dict[Contract, Tolerances], Field(min_length=1)]
    weights: str | None = None
    calibration: str | None = None
    patch: str | None = None
    fit_patch: str | None = None

    def defense(self, shallow: tuple[str, ...], deep: tuple[str, ...]) -> DefenseSpec:
        """The defense of this preset; ``shallow`` and ``deep`` apply where it names none."""
        return DefenseSpec(
            shallow=self.shallow or shallow,
            deep=self.deep or deep,
            shallow_kernels=self.shallow_kernels,
            deep_kernels=self.deep_kernels,
            grid=self.grid,
            registration=self.registration,
            fill=self.fill,
            corners=self.corners,
        )

    def contract(self, precision: Precision) -> Tolerances:
        """The tolerances of a precision; a graph of tf32 is one of fp32.

        Raises:
            UsageError: the preset states none.
        """
        name: Contract = "fp32" if precision == "tf32" else precision
        if name not in self.tolerances:
            raise UsageError(
                f"The preset states no tolerances for {name}.",
                fix=f"Add a block {name} to its tolerances; the shipped presets show the form.",
            )
        return self.tolerances[name]


def explain(error: ValidationError) -> str:
    """The first problem of a pydantic error in a few words: field and message."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where + ': ' if where else ''}{first['msg']}"

"""Numbers with intervals, from cells."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from zmask_export.evaluate import detection
from zmask_export.evaluate.bootstrap import Estimate, Resamples, Weights
from zmask_export.evaluate.cells import Cell
from zmask_export.evaluate.metrics import mean_iou
from zmask_export.spec import Spec


class Detection(Spec):
    """How well a score tells patched from clean images: AUC, and FPR at a TPR of 0.95 and 0.99."""

    auc: Estimate
    fpr_at_tpr95: Estimate
    fpr_at_tpr99: Estimate


class Row(Spec):
    """What every subject reached under one attack.

    Attributes:
        attack: its name, "None" for clean images.
        value: beta or alpha of a patch of a series; None else.
        miou: subject to mIoU outside the patch.
        detection: detector to its separation from clean images; empty for clean images.
        flagged: share of images that Z-Mask flags at its threshold: TPR, or FPR for clean images.
        mask_iou: mean IoU of Z-Mask's covered pixels and the patch; None for clean images.
        covered: mean share of pixels that Z-Mask covers.
        recovered: (defended - attacked) / (oracle - attacked) of the mIoU; None for clean images.
    """

    attack: str
    value: float | None = None
    miou: dict[str, Estimate]
    detection: dict[str, Detection] = Field(default_factory=dict)
    flagged: Estimate | None = None
    mask_iou: Estimate | None = None
    covered: Estimate | None = None
    recovered: Estimate | None = None


@dataclass(frozen=True)
class Clean:
    """What rows of patched images are compared with.

    Attributes:
        cells: subject to its cell on the clean images.
        threshold: lambda0 of the defense.
        resamples: shared by all rows.
    """

    cells: Mapping[str, Cell]
    threshold: float
    resamples: Resamples

    @property
    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Detector to its scores (n,) on the clean images."""
        return {n: s for cell in self.cells.values() for n, s in cell.scores.items()}


def row(attack: str, cells: Mapping[str, Cell], clean: Clean, value: float | None = None) -> Row:
    """The row of one attack.

    Args:
        attack: its name.
        cells: subject to its cell; ``none``, ``zmask`` and ``oracle`` give the recovered part.
        clean: cells of the same images without a patch; the same mapping as ``cells`` makes the
            row of clean images.
        value: beta or alpha of a patch of a series.
    """
    draw = clean.resamples
    patched = cells is not clean.cells
    overlaps = {n: c.overlaps for n, c in cells.items() if c.overlaps is not None}
    found: dict[str, Detection] = {}
    for cell in cells.values() if patched else ():
        for name, scores in cell.scores.items():
            if name in clean.scores:
                found[name] = detect(clean.scores[name], scores, draw)
    masked = cells.get("zmask", Cell())
    flags = masked.scores.get("zmask")
    return Row(
        attack=attack,
        value=value,
        miou={n: draw.estimate(functools.partial(_miou, o)) for n, o in overlaps.items()},
        detection=found,
        flagged=None if flags is None else draw.mean(flags > clean.threshold),
        mask_iou=draw.mean(masked.mask_iou) if patched and masked.mask_iou is not None else None,
        covered=None if masked.covered is None else draw.mean(masked.covered),
        recovered=_recovered(overlaps, draw) if patched else None,
    )


def detect(
    clean: NDArray[np.float64], patched: NDArray[np.float64], resamples: Resamples
) -> Detection:
    """Separation of patched from clean scores (n,) of the same images.

    Raises:
        CalibrationError: a score is not finite.
    """
    return Detection(
        auc=resamples.estimate(lambda w: detection.auc(clean, patched, w)),
        fpr_at_tpr95=resamples.estimate(lambda w: detection.fpr_at_tpr(clean, patched, 0.95, w)),
        fpr_at_tpr99=resamples.estimate(lambda w: detection.fpr_at_tpr(clean, patched, 0.99, w)),
    )


def _miou(overlaps: NDArray[np.int64], weights: Weights) -> NDArray[np.float64]:
    flat = overlaps.reshape(len(overlaps), -1).astype(np.float64)
    return mean_iou((weights @ flat).reshape(-1, *overlaps.shape[1:]))


def _recovered(overlaps: Mapping[str, NDArray[np.int64]], resamples: Resamples) -> Estimate | None:
    if not {"none", "zmask", "oracle"} <= overlaps.keys():
        return None

    def share(weights: Weights) -> NDArray[np.float64]:
        attacked, defended, oracle = (
            _miou(overlaps[name], weights) for name in ("none", "zmask", "oracle")
        )
        gain, room = defended - attacked, oracle - attacked
        # Where the oracle wins nothing back there is nothing to recover.
        return np.divide(gain, room, out=np.full(gain.shape, np.nan), where=room > 0)

    return resamples.estimate(share)

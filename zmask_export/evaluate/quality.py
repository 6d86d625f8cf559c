"""Numbers with intervals, from cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from zmask_export.evaluate import detection
from zmask_export.evaluate.bootstrap import Estimate, Resamples
from zmask_export.evaluate.cells import Cell
from zmask_export.evaluate.task import Record, main_metric
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
        miou: subject to mIoU outside the patch; empty for a network that detects objects.
        map_50: subject to mAP@0.5 beside the patch; empty for a network that segments.
        map_50_95: the same of mAP@[.5:.95]; empty in a series too, where it is not computed.
        detection: detector to its separation from clean images; empty for clean images.
        flagged: share of images that Z-Mask flags at its threshold: TPR, or FPR for clean images.
        mask_iou: mean IoU of Z-Mask's covered pixels and the patch; None for clean images.
        covered: mean share of pixels that Z-Mask covers.
        recovered: (defended - attacked) / (oracle - attacked) of the mIoU or mAP@0.5; None for clean
            images.
    """

    attack: str
    value: float | None = None
    miou: dict[str, Estimate] = Field(default_factory=dict)
    map_50: dict[str, Estimate] = Field(default_factory=dict)
    map_50_95: dict[str, Estimate] = Field(default_factory=dict)
    detection: dict[str, Detection] = Field(default_factory=dict)
    flagged: Estimate | None = None
    mask_iou: Estimate | None = None
    covered: Estimate | None = None
    recovered: Estimate | None = None

    @property
    def quality(self) -> dict[str, Estimate]:
        """Subject to the network's main metric, whatever its task."""
        return self.miou or self.map_50


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
    records = {n: c.record for n, c in cells.items() if c.record is not None}
    values = {n: draw.values(main_metric(record)) for n, record in records.items()}
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
        **_metrics(records, values, draw, main_alone=value is not None),
        detection=found,
        flagged=None if flags is None else draw.mean(flags > clean.threshold),
        mask_iou=draw.mean(masked.mask_iou) if patched and masked.mask_iou is not None else None,
        covered=None if masked.covered is None else draw.mean(masked.covered),
        recovered=_recovered(values, draw) if patched else None,
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


def lost(before: Record, after: Record, resamples: Resamples) -> Estimate:
    """Share of the main metric that is lost from one record to another of the same images."""
    first, second = (resamples.values(main_metric(record)) for record in (before, after))
    return resamples.summary(_share(first - second, first))


def _metrics(
    records: Mapping[str, Record],
    values: Mapping[str, NDArray[np.float64]],
    resamples: Resamples,
    *,
    main_alone: bool,
) -> dict[str, dict[str, Estimate]]:
    """Metric to subject to estimate; ``values`` are those of the main metric."""
    estimates: dict[str, dict[str, Estimate]] = {}
    for subject, record in records.items():
        main, *others = record.metrics().items()
        estimates.setdefault(main[0], {})[subject] = resamples.summary(values[subject])
        for name, metric in () if main_alone else others:
            estimates.setdefault(name, {})[subject] = resamples.estimate(metric)
    return estimates


def _recovered(values: Mapping[str, NDArray[np.float64]], resamples: Resamples) -> Estimate | None:
    if not {"none", "zmask", "oracle"} <= values.keys():
        return None
    attacked, defended, oracle = (values[name] for name in ("none", "zmask", "oracle"))
    # Where the oracle wins nothing back there is nothing to recover.
    return resamples.summary(_share(defended - attacked, oracle - attacked))


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole; NaN where there is no whole."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)

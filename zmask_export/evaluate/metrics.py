"""Metrics of segmentation and of the defense, on numpy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zmask_export.data.segmentation import IGNORE
from zmask_export.errors import ShapeError


class ConfusionMatrix:
    """Counts of (label, prediction) pairs over any number of images; mergeable by ``+=``.

    Args:
        classes: number of classes C; ``counts`` is (C, C) int64, rows are labels.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)

    def update(
        self,
        prediction: NDArray[np.integer],
        labels: NDArray[np.integer],
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count predictions against labels of the same shape (class indices).

        Pixels labelled :data:`IGNORE` and those where ``valid`` is False do not count.

        Raises:
            ShapeError: the shapes differ.
        """
        if prediction.shape != labels.shape:
            raise ShapeError(
                f"Predictions are {prediction.shape} and labels {labels.shape}.",
                fix="Give both at the same resolution.",
            )
        counted = labels != IGNORE
        if valid is not None:
            counted &= valid
        pairs = labels[counted].astype(np.int64) * self.classes + prediction[counted]
        self.counts += np.bincount(pairs, minlength=self.classes**2).reshape(self.counts.shape)

    def __iadd__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        self.counts += other.counts
        return self

    def overlap(self) -> NDArray[np.int64]:
        """Pixels in intersection and union of each class, int64 (2, C); additive over images."""
        hits = np.diag(self.counts)
        return np.stack([hits, self.counts.sum(0) + self.counts.sum(1) - hits])

    def class_iou(self) -> NDArray[np.float64]:
        """IoU per class (C,); NaN for a class that neither labels nor predictions contain."""
        hits, union = self.overlap()
        with np.errstate(invalid="ignore"):
            return hits / union

    def mean_iou(self) -> float:
        """Mean of :meth:`class_iou` over the classes that occur; NaN where none does."""
        return float(mean_iou(self.overlap()))


def overlap(
    prediction: NDArray[np.integer],
    labels: NDArray[np.integer],
    classes: int,
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """:meth:`ConfusionMatrix.overlap` of one image, int64 (2, C)."""
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction, labels, valid)
    return matrix.overlap()


def mean_iou(overlaps: NDArray[np.number]) -> NDArray[np.float64]:
    """mIoU of intersection and union counts.

    Args:
        overlaps: (..., 2, C), from :func:`overlap`, summed over images or weighted sums of them.

    Returns:
        (...), the mean over the classes that occur; NaN where none does.
    """
    hits, union = overlaps[..., 0, :], overlaps[..., 1, :]
    occurs = union > 0
    iou = np.divide(hits, union, out=np.zeros(union.shape), where=occurs)
    total, count = iou.sum(-1), occurs.sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """IoU of two boolean masks of one shape; two empty masks give 1."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0

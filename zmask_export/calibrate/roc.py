"""Choosing the detection threshold lambda0 from scores of clean and patched images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmask_export.errors import CalibrationError, UsageError

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Cut:
    """A threshold and what it does: flag = score > threshold."""

    threshold: float
    true_positive_rate: float
    false_positive_rate: float


def auc(clean: Scores, patched: Scores) -> float:
    """Area under the ROC curve: P(patched > clean) + P(equal) / 2 over all pairs.

    Raises:
        CalibrationError: a set is empty or holds a value that is not finite.
    """
    _check(clean, patched)
    ordered = np.sort(clean)
    below = np.searchsorted(ordered, patched, side="left")
    upto = np.searchsorted(ordered, patched, side="right")
    return float((below + upto).sum() / (2 * clean.size * patched.size))


def best_cut(clean: Scores, patched: Scores) -> Cut:
    """The cut with the largest TPR - FPR.

    All thresholds between two neighbouring scores do the same; of the gap that wins, the geometric
    middle is taken (scores are products, so their errors are relative).

    Raises:
        CalibrationError: see :func:`auc`.
    """
    _check(clean, patched)
    scores = np.unique(np.concatenate([clean, patched]))
    gaps = np.concatenate([scores, [scores[-1]]])
    tpr = 1 - np.searchsorted(np.sort(patched), scores, side="right") / patched.size
    fpr = 1 - np.searchsorted(np.sort(clean), scores, side="right") / clean.size
    best = int(np.argmax(tpr - fpr))
    low, high = float(gaps[best]), float(gaps[best + 1])
    threshold = float(np.sqrt(low * high)) if low > 0 else (low + high) / 2
    if not low <= threshold < high:  # rounded out of the gap
        threshold = low
    return _cut(threshold, clean, patched)


def cut_at_fpr(clean: Scores, patched: Scores, target: float) -> Cut:
    """The smallest threshold that flags at most a share ``target`` of the clean images.

    Raises:
        UsageError: ``target`` is outside [0, 1).
        CalibrationError: see :func:`auc`.
    """
    _check(clean, patched)
    require_rate(target)
    ordered = np.sort(clean)
    allowed = int(np.floor(target * clean.size + 1e-9))
    return _cut(float(ordered[clean.size - 1 - allowed]), clean, patched)


def require_rate(target: float) -> None:
    """Refuse a false-positive rate outside [0, 1).

    Raises:
        UsageError: it is outside.
    """
    if not 0 <= target < 1:
        raise UsageError(
            f"A false-positive rate of {target} is not in [0, 1).", fix="Give for example 0.01."
        )


def _cut(threshold: float, clean: Scores, patched: Scores) -> Cut:
    return Cut(threshold, float((patched > threshold).mean()), float((clean > threshold).mean()))


def _check(clean: Scores, patched: Scores) -> None:
    for label, scores in (("clean", clean), ("patched", patched)):
        if not scores.size or not np.isfinite(scores).all():
            raise CalibrationError(
                f"The scores of the {label} images are empty or not finite.",
                fix="Give images that the network can process.",
            )

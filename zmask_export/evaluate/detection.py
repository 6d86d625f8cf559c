"""How well a score tells patched from clean images: ROC curve, AUC, FPR at a required TPR.

The same images are seen clean and patched, so weights (B, n) of a bootstrap count a pair together.
An image is flagged where its score is above the threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zmask_export.errors import CalibrationError, UsageError
from zmask_export.evaluate.bootstrap import Weights

Scores = NDArray[np.float64]


def roc_curve(clean: Scores, patched: Scores) -> NDArray[np.float64]:
    """Corners of the ROC curve, (k, 2) with columns FPR and TPR, from (0, 0) to (1, 1).

    Points on a straight line between their neighbours are left out.

    Raises:
        CalibrationError: a set is empty or holds a value that is not finite.
    """
    _check(clean, patched)
    cuts = np.unique(np.concatenate([clean, patched]))[::-1]
    fpr = (clean[None] >= cuts[:, None]).mean(1)
    tpr = (patched[None] >= cuts[:, None]).mean(1)
    points = np.vstack([[0.0, 0.0], np.column_stack([fpr, tpr])])
    step = np.diff(points, axis=0)
    turn = step[:-1, 0] * step[1:, 1] - step[:-1, 1] * step[1:, 0]
    keep = np.concatenate([[True], np.abs(turn) > 1e-12, [True]])
    return points[keep]


def auc(clean: Scores, patched: Scores, weights: Weights) -> NDArray[np.float64]:
    """Area under the ROC curve, P(patched > clean) + P(equal) / 2, for every row of ``weights`` (B,).

    Raises:
        CalibrationError: see :func:`roc_curve`.
    """
    _check(clean, patched)
    order = np.argsort(clean)
    ordered = clean[order]
    mass = np.pad(np.cumsum(weights[:, order], axis=1), ((0, 0), (1, 0)))
    below = mass[:, np.searchsorted(ordered, patched, side="left")]
    upto = mass[:, np.searchsorted(ordered, patched, side="right")]
    return (weights * (below + upto)).sum(1) / (2 * weights.sum(1) ** 2)


def fpr_at_tpr(
    clean: Scores, patched: Scores, target: float, weights: Weights
) -> NDArray[np.float64]:
    """Smallest FPR of a threshold that flags a share ``target`` of the patched images, (B,).

    Args:
        clean, patched: scores (n,) of the same images.
        target: required TPR in (0, 1].
        weights: (B, n).

    Raises:
        CalibrationError: see :func:`roc_curve`.
        UsageError: ``target`` is outside (0, 1].
    """
    _check(clean, patched)
    if not 0 < target <= 1:
        raise UsageError(f"A TPR of {target} is not in (0, 1].", fix="Give for example 0.95.")
    falling = np.argsort(-patched)
    found = np.cumsum(weights[:, falling], axis=1)
    need = target * weights.sum(1, keepdims=True) - 1e-9
    weakest = patched[falling][np.argmax(found >= need, axis=1)]
    rising = np.argsort(clean)
    mass = np.pad(np.cumsum(weights[:, rising], axis=1), ((0, 0), (1, 0)))
    under = np.searchsorted(clean[rising], weakest, side="left")
    missed = np.take_along_axis(mass, under[:, None], axis=1)[:, 0]
    return 1 - missed / weights.sum(1)


def _check(clean: Scores, patched: Scores) -> None:
    for label, scores in (("clean", clean), ("patched", patched)):
        if not scores.size or not np.isfinite(scores).all():
            raise CalibrationError(
                f"The scores of the {label} images are empty or not finite.",
                fix="Give images that the network can process.",
            )

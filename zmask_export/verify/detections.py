"""Comparing two sets of detections of one image, whatever their order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zmask_export.backends.runner import Arrays
from zmask_export.spec import Tolerances


def compare_detections(expected: Arrays, actual: Arrays, limits: Tolerances) -> tuple[float, float]:
    """How far apart two detectors are on one image.

    Two detections are the same one where their labels are equal and neither score nor any corner differs by
    more than the limits. Of nearly equal scores either may come first, so order does not count.

    Args:
        expected, actual: ``boxes`` (1, K, 4), ``scores`` (1, K), ``labels`` (1, K), ``count`` (1,).
        limits: ``boxes_atol`` and ``scores_atol``; where they are None nothing may differ.

    Returns:
        The largest distance of two partners' corners in pixels, and the share of all detections, of both
        sides, without a partner; 0 where neither side has any.
    """
    first, second = (_rows(outputs) for outputs in (expected, actual))
    total = len(first[1]) + len(second[1])
    if not total:
        return 0.0, 0.0
    apart = np.abs(first[0][:, None] - second[0][None]).max(axis=2, initial=0.0)
    near = np.abs(first[1][:, None] - second[1][None]) <= (limits.scores_atol or 0.0)
    same = near & (apart <= (limits.boxes_atol or 0.0))
    same &= first[2][:, None] == second[2][None]
    taken = np.zeros(len(second[1]), bool)
    worst = 0.0
    for row in range(len(first[1])):
        free = np.flatnonzero(same[row] & ~taken)
        if len(free):
            partner = free[apart[row, free].argmin()]
            taken[partner] = True
            worst = max(worst, float(apart[row, partner]))
    return worst, 1 - 2 * int(taken.sum()) / total


def _rows(outputs: Arrays) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    count = int(outputs["count"][0])
    return outputs["boxes"][0, :count], outputs["scores"][0, :count], outputs["labels"][0, :count]

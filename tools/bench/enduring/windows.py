"""A long run in slices of equal length, and whether a quantity grows over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import theilslopes

from zmask_export.spec import Spec

SLICES = 60
"""Of a run: they make tenths as well as twelfths."""
WINDOWS = 12
TENTHS = 10
LEVEL = 0.95
"""Of every interval."""

Verdict = Literal["flat", "grows", "unclear", "not judged"]
"""``flat``: the interval of the growth ends below the limit. ``grows``: the growth is above the limit and
its interval above 0. ``unclear``: neither. ``not judged``: the run was too short."""


class Trend(Spec):
    """What a quantity gained over the whole run, by the Theil-Sen line through its windows.

    Attributes:
        gained: the line's end less its start, in the quantity's unit.
        lower, upper: the 95 % interval of ``gained`` (Sen 1968, from Kendall's rank statistic).
    """

    gained: float
    lower: float
    upper: float

    def verdict(self, limit: float) -> Verdict:
        """Against the most that may be gained."""
        if self.upper <= limit:
            return "flat"
        return "grows" if self.gained > limit and self.lower > 0 else "unclear"

    def scaled(self, factor: float) -> Trend:
        """In another unit."""
        return Trend(
            gained=self.gained * factor, lower=self.lower * factor, upper=self.upper * factor
        )


def trend(values: Sequence[float]) -> Trend:
    """The trend of one value a window, in order; three values at least."""
    middles = (np.arange(len(values)) + 0.5) / len(values)
    line = theilslopes(values, middles, alpha=LEVEL)
    return Trend(
        gained=float(line.slope), lower=float(line.low_slope), upper=float(line.high_slope)
    )


def bounds(count: int) -> list[tuple[int, int]]:
    """First and last (exclusive) slice of each of ``count`` equal parts of a run."""
    each = SLICES // count
    return [(start, start + each) for start in range(0, SLICES, each)]

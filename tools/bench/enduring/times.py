"""How long frames took, in constant memory: a histogram of every slice."""

from __future__ import annotations

import math

import numpy as np

from enduring.windows import SLICES, TENTHS, WINDOWS, Trend, Verdict, bounds, trend
from zmask_export.spec import Spec

SHORTEST = 1e-5
"""Seconds; the upper edge of the first bin."""
RATIO = 1.01
"""Of a bin's edges: a quantile is off by half a percent at most."""
BINS = 1900
"""Up to 1600 seconds; the last bin also takes what is longer."""
FEWEST = 300
"""Frames of a window, below which its p99 is the luck of three."""


class Quantiles(Spec):
    """Of the frames of one part of a run, in milliseconds."""

    frames: int
    p50: float
    p99: float
    p999: float


class Latency(Spec):
    """Milliseconds a frame.

    Attributes:
        whole, first_tenth, last_tenth: of the run; a tenth is None where no frame fell into it.
        largest: of all frames.
        p99_last_over_first: of the tenths.
        p99_windows: of twelve windows; None where one holds no frame.
        growth: of the windows' p99 over the run, as a share of their median.
        verdict: against the growth that is allowed.
    """

    whole: Quantiles
    first_tenth: Quantiles | None
    last_tenth: Quantiles | None
    largest: float
    p99_last_over_first: float | None
    p99_windows: tuple[float, ...] | None
    growth: Trend | None
    verdict: Verdict


class Times:
    """Counts of durations by slice and bin."""

    def __init__(self) -> None:
        # full() writes to every page, zeros() does not: the memory under watch must not grow by these.
        self._counts = np.full((SLICES, BINS), 0, np.uint32)
        self._largest = 0.0

    def add(self, index: int, seconds: float) -> None:
        """Count one duration in slice ``index``."""
        place = math.ceil(math.log(max(seconds, SHORTEST) / SHORTEST, RATIO))
        self._counts[index, min(place, BINS - 1)] += 1
        self._largest = max(self._largest, seconds)

    def quantiles(self, first: int = 0, last: int = SLICES) -> Quantiles | None:
        """Of the slices ``first`` to ``last`` (exclusive); None where they are empty."""
        reached = self._counts[first:last].sum(axis=0).cumsum()
        frames = int(reached[-1])
        if not frames:
            return None

        def at(share: float) -> float:
            place = int(np.searchsorted(reached, math.ceil(share * frames)))
            middle = SHORTEST * RATIO ** (place - 0.5)
            return 1e3 * min(middle, self._largest)

        return Quantiles(frames=frames, p50=at(0.5), p99=at(0.99), p999=at(0.999))

    def latency(self, limit: float) -> Latency | None:
        """The outcome; None where there was no frame.

        Args:
            limit: growth of the windows' p99 that is allowed, as a share.
        """
        whole = self.quantiles()
        if whole is None:
            return None
        tenths = [self.quantiles(*ends) for ends in bounds(TENTHS)]
        first, last = tenths[0], tenths[-1]
        windows = [found for ends in bounds(WINDOWS) if (found := self.quantiles(*ends))]
        p99 = tuple(found.p99 for found in windows) if len(windows) == WINDOWS else None
        enough = p99 is not None and min(found.frames for found in windows) >= FEWEST
        growth = trend(p99).scaled(1 / float(np.median(p99))) if p99 is not None else None
        return Latency(
            whole=whole,
            first_tenth=first,
            last_tenth=last,
            largest=1e3 * self._largest,
            p99_last_over_first=last.p99 / first.p99 if first and last else None,
            p99_windows=p99,
            growth=growth,
            verdict=growth.verdict(limit) if growth is not None and enough else "not judged",
        )

"""What the process holds: memory, open files, threads; in constant memory itself."""

from __future__ import annotations

import numpy as np
import psutil

from enduring.windows import SLICES, WINDOWS, Trend, Verdict, bounds, trend
from zmask_export.spec import Spec

MB = 1e6
FEWEST = 10
"""Looks at a window, below which its mean is chance."""


class Memory(Spec):
    """Resident memory; megabytes are 10^6 bytes.

    Attributes:
        loaded_mb, start_mb, end_mb: with the bundle loaded, after the warm-up, at the end.
        highest_mb: of all looks.
        windows_mb: means of twelve windows; None where one had no look.
        slope_mb_per_minute: of the Theil-Sen line through the windows.
        last_half_mb: what the twelfth window's mean has above the seventh's.
        verdict: ``last_half_mb`` against what it may be.
    """

    loaded_mb: float
    start_mb: float
    end_mb: float
    highest_mb: float
    windows_mb: tuple[float, ...] | None
    slope_mb_per_minute: Trend | None
    last_half_mb: float | None
    verdict: Verdict


class Handles(Spec):
    """Open file descriptors or threads: a leak raises the fewest that any look finds.

    Attributes:
        first, last: the fewest in the first and the last of twelve windows; None without a look.
        most: of all looks.
        verdict: whether the last exceeds the first.
    """

    first: int | None
    last: int | None
    most: int
    verdict: Verdict


class Resources:
    """Looks at this process, by slice."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.loaded = self.start = self.end = self._rss()
        self._highest = 0.0
        self._looks = np.full(SLICES, 0, np.int64)
        self._sums = np.full(SLICES, 0.0)
        self._fewest = np.full((2, SLICES), np.iinfo(np.int64).max)
        self._most = np.full(2, 0, np.int64)

    def _rss(self) -> float:
        return float(self._process.memory_info().rss) / MB

    def look(self, index: int) -> None:
        """Note what there is now, in slice ``index``."""
        self.end = self._rss()
        if not self._looks.any():
            self.start = self.end
        handles = (self._process.num_fds(), self._process.num_threads())
        self.note(index, self.end, handles)

    def note(self, index: int, megabytes: float, handles: tuple[int, int]) -> None:
        """One look: resident memory, and how many descriptors and threads."""
        self._looks[index] += 1
        self._sums[index] += megabytes
        self._highest = max(self._highest, megabytes)
        self._fewest[:, index] = np.minimum(self._fewest[:, index], handles)
        self._most = np.maximum(self._most, handles)

    def memory(self, minutes: float, limit: float) -> Memory:
        """The outcome for memory.

        Args:
            minutes: that the run took.
            limit: megabytes that the last half may gain.
        """
        looks = self._in_windows(self._looks)
        means, slope, gained = None, None, None
        if min(looks):
            sums = self._in_windows(self._sums)
            means = tuple(total / count for total, count in zip(sums, looks, strict=True))
            slope = trend(means).scaled(1 / minutes)
            gained = means[-1] - means[WINDOWS // 2]
        verdict: Verdict = "not judged"
        if gained is not None and min(looks) >= FEWEST:
            verdict = "flat" if gained <= limit else "grows"
        return Memory(
            loaded_mb=self.loaded,
            start_mb=self.start,
            end_mb=self.end,
            highest_mb=self._highest,
            windows_mb=means,
            slope_mb_per_minute=slope,
            last_half_mb=gained,
            verdict=verdict,
        )

    def descriptors(self) -> Handles:
        """The outcome for open file descriptors."""
        return self._handles(0)

    def threads(self) -> Handles:
        """The outcome for threads."""
        return self._handles(1)

    def _handles(self, kind: int) -> Handles:
        fewest = [int(self._fewest[kind, start:stop].min()) for start, stop in bounds(WINDOWS)]
        looks = self._in_windows(self._looks)
        first = fewest[0] if looks[0] else None
        last = fewest[-1] if looks[-1] else None
        verdict: Verdict = "not judged"
        if first is not None and last is not None and min(looks) >= FEWEST:
            verdict = "flat" if last <= first else "grows"
        return Handles(first=first, last=last, most=int(self._most[kind]), verdict=verdict)

    @staticmethod
    def _in_windows(values: np.ndarray) -> list[float]:
        return [float(values[start:stop].sum()) for start, stop in bounds(WINDOWS)]

"""Two matrices of a stage, the first cut into strips that leave out what is zero."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from zmask_export.defense.matrices import Matrix
from zmask_export.spec import Size


@dataclass(frozen=True)
class Strip:
    """Rows ``start:stop`` of a matrix, and the columns ``low:high`` outside which they are zero."""

    start: int
    stop: int
    low: int
    high: int

    @property
    def height(self) -> int:
        """Rows of the strip."""
        return self.stop - self.start

    @property
    def depth(self) -> int:
        """Columns that are multiplied."""
        return self.high - self.low


@dataclass(frozen=True)
class Stage:
    """One P_i = L z W^T as two matrices.

    Attributes:
        key: names the stage: kernels up to and including this one.
        first: matrix (G1, n1) of the axis that is contracted in strips.
        second: matrix (G2, n2) of the other axis.
        strips: of ``first``.
    """

    key: tuple[Size, ...]
    first: Matrix
    second: Matrix
    strips: tuple[Strip, ...]

    def multiply_adds(self, strip: Strip) -> int:
        """Of one strip and one channel, in the cheaper order."""
        return min(self._orders(strip))

    def first_first(self, strip: Strip) -> bool:
        """Whether the strip's own matrix is better applied before the other axis' one."""
        first, second = self._orders(strip)
        return first < second

    def _orders(self, strip: Strip) -> tuple[int, int]:
        g2, n2 = self.second.shape
        height, depth = strip.height, strip.depth
        return height * depth * n2 + height * n2 * g2, depth * n2 * g2 + height * depth * g2


def cut(key: tuple[Size, ...], first: Matrix, second: Matrix, strips: int) -> Stage:
    """A stage with ``first`` (G1, n1) cut into ``strips`` of about equal height."""
    ends = np.linspace(0, len(first), strips + 1).round().astype(int).tolist()
    found = []
    for start, stop in itertools.pairwise(ends):
        used = np.flatnonzero(np.any(first[start:stop] != 0, axis=0))
        found.append(Strip(start, stop, int(used[0]), int(used[-1]) + 1))
    return Stage(key, first, second, tuple(found))

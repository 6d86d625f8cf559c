"""Choosing S and D among layers, greedily, within a budget of multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zmask_export.calibrate.evidence import Evidence, Taps
from zmask_export.errors import UsageError

MOST_TAPS = 4
"""Largest set; Table 1's largest."""
MIN_GAIN = 0.005
"""Quality that one more layer must bring."""

Cost = Callable[[Taps, Taps], int]
"""Multiply-adds of the cascades of (S, D), for one image."""


def propose(
    evidence: Evidence,
    candidates: Sequence[str],
    cost: Cost,
    budget: int,
    *,
    on_set: Callable[[int], None] | None = None,
) -> tuple[Taps, Taps]:
    """S and D, greedily: the best pair of layers, then the layer that brings most, within the budget.

    Stops where a layer would bring less than ``MIN_GAIN``, or the sets are full (``MOST_TAPS``). Of
    equally good sets the cheaper one is taken.

    Args:
        evidence: heatmaps of the candidates.
        candidates: taps to choose from, for either set.
        cost: see :data:`Cost`.
        budget: most multiply-adds.
        on_set: told the number of sets judged.

    Raises:
        UsageError: not even one pair is within the budget.
    """
    require_affordable(candidates, cost, budget)
    judged = 0
    best: tuple[float, int] | None = None
    sets: tuple[Taps, Taps] = ((), ())
    moves: list[tuple[Taps, Taps]] = [((s,), (d,)) for s in candidates for d in candidates]
    while moves:
        found = None
        for shallow, deep in moves:
            multiply_adds = cost(shallow, deep)
            if multiply_adds > budget:
                continue
            rank = (evidence.judge(shallow, deep).value, -multiply_adds)
            judged += 1
            if on_set is not None:
                on_set(judged)
            if found is None or rank > found[0]:
                found = rank, (shallow, deep)
        if found is None or (best is not None and found[0][0] < best[0] + MIN_GAIN):
            break
        best, sets = found
        moves = _larger(*sets, candidates)
    return sets


def require_affordable(candidates: Sequence[str], cost: Cost, budget: int) -> None:
    """Refuse a budget that not even the cheapest pair of layers is within.

    Raises:
        UsageError: it is such a budget.
    """
    cheapest = min(cost((s,), (d,)) for s in candidates for d in candidates)
    if cheapest > budget:
        raise UsageError(
            f"No pair of layers is within {budget:,} multiply-adds; the cheapest takes "
            f"{cheapest:,}.",
            fix="Give a larger --budget, or cheaper layers with --candidates.",
        )


def most_sets(candidates: int) -> int:
    """The largest number of sets that :func:`propose` may judge."""
    return candidates**2 + 2 * (2 * MOST_TAPS - 2) * candidates


def _larger(shallow: Taps, deep: Taps, candidates: Sequence[str]) -> list[tuple[Taps, Taps]]:
    """All sets with one layer more in S or in D."""
    moves = []
    if len(shallow) < MOST_TAPS:
        moves += [((*shallow, tap), deep) for tap in candidates if tap not in shallow]
    if len(deep) < MOST_TAPS:
        moves += [(shallow, (*deep, tap)) for tap in candidates if tap not in deep]
    return moves

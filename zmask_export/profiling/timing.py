"""Taking turns: every case runs once a round, so a machine that changes its speed changes it for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from zmask_export.spec import Spec

Key = TypeVar("Key")
Item = TypeVar("Item")

SETTLE = 0.005
"""Seconds between runs, and between looks at whether threads rest."""
BUSY = 0.1
"""Share of a core that a process at rest stays below."""
PATIENCE = 0.2
"""Seconds to wait at the most."""


class Spread(Spec):
    """Median and quartiles of one quantity over the rounds, and the rounds themselves."""

    median: float
    lower: float
    upper: float
    rounds: tuple[float, ...]


def take_turns(
    cases: Mapping[Key, Callable[[], object]],
    rounds: int,
    warmups: int = 1,
    *,
    seconds: float | None = None,
    at_least: int = 1,
    on_round: Callable[[int], None] | None = None,
) -> dict[Key, list[float]]:
    """Milliseconds of every case, one value a round; each round begins one case later.

    Args:
        cases: what to run.
        rounds: how often each runs.
        warmups: rounds before, whose times do not count.
        seconds: after which no further round starts, once there are ``at_least``; None: no limit.
        at_least: rounds that are run however long they take.
        on_round: told the number of rounds that are done and count.
    """
    keys = list(cases)
    taken: dict[Key, list[float]] = {key: [] for key in cases}
    began = time.perf_counter()
    for index in range(warmups + rounds):
        late = seconds is not None and time.perf_counter() - began > seconds
        if late and index >= warmups + at_least:
            break
        first = index % max(len(keys), 1)
        for key in keys[first:] + keys[:first]:
            run = cases[key]
            rest()
            started = time.perf_counter()
            run()
            elapsed = (time.perf_counter() - started) * 1e3
            if index >= warmups:
                taken[key].append(elapsed)
        if on_round is not None and index >= warmups:
            on_round(index + 1 - warmups)
    return taken


def rest() -> None:
    """Wait until this process is idle.

    Threads of PyTorch's wait for more work at full speed, for ten milliseconds and longer, on the cores of
    whose turn it is.
    """
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end:
        used = time.process_time()
        time.sleep(SETTLE)
        if time.process_time() - used < BUSY * SETTLE:
            return


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    lower, median, upper = np.percentile(values, [25, 50, 75]).tolist()
    return Spread(median=median, lower=lower, upper=upper, rounds=tuple(values))


def ratio(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Spread of the ratios of two cases, each round by itself."""
    return spread([value / other for value, other in zip(values, base, strict=True)])


def total(values: Sequence[Sequence[float]]) -> list[float]:
    """Sum of several cases, round by round."""
    return [sum(of_round) for of_round in zip(*values, strict=True)]


def middle_half(ordered: Sequence[Item]) -> list[Item]:
    """What is left of sorted runs without the quickest and the slowest quarter."""
    quarter = len(ordered) // 4
    return list(ordered[quarter : len(ordered) - quarter])

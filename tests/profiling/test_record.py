from __future__ import annotations

import pytest

from zmask_export.profiling.overhead import EventCost
from zmask_export.profiling.parts import RUNTIME, PartTimes, mean
from zmask_export.profiling.record import attribution


def _run(total: float, network: float, events: int = 10) -> PartTimes:
    parts = {"network": network, "cascade/x": 4.0, "fusion": 0.5, RUNTIME: 1.0}
    # Ninety steps of the cascade lie in a loop of it.
    counts = {"network": events, "cascade/x": 100, "fusion": 100}
    return PartTimes(total, parts, counts, {RUNTIME: events + 110, "cascade/x": 90})


def test_the_mean_of_runs_is_that_of_every_part() -> None:
    found = mean([_run(10.0, 6.0), PartTimes(2.0, {"network": 2.0}, {"network": 4}, {RUNTIME: 4})])
    assert found.total_ms == 6.0
    assert found.parts_ms == {"network": 4.0, "cascade/x": 2.0, RUNTIME: 0.5, "fusion": 0.25}
    assert next(iter(found.parts_ms)) == "network"
    assert found.events["network"] == 7
    assert found.held == {RUNTIME: 62, "cascade/x": 45}


def test_the_profiler_is_taken_off_by_the_number_of_events() -> None:
    cost = EventCost(inside=0.01, outside=0.002)
    found = attribution("clean", 1, [_run(11.5, 6.0)] * 4, [10.0] * 4, cost)
    # A part never becomes less than nothing.
    assert found.parts_ms == pytest.approx({"network": 5.9, "cascade/x": 2.82, "fusion": 0.0})
    assert found.between_nodes_ms == pytest.approx(1 - 0.002 * 120)
    assert found.profiler_ms == pytest.approx(0.012 * 210)
    assert (found.measured_ms, found.profiled_ms) == (10.0, 11.5)
    assert found.accounted == pytest.approx(0.872)
    assert found.part("cascade") == pytest.approx(2.82)


def test_the_quickest_and_the_slowest_quarter_do_not_count() -> None:
    runs = [_run(total, 6.0) for total in (900.0, 10.0, 12.0, 1.0)]
    found = attribution("attacked", 2, runs, [1.0, 7.0, 9.0, 500.0], EventCost(0, 0))
    assert (found.measured_ms, found.profiled_ms) == (8.0, 11.0)

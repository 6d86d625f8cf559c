from __future__ import annotations

import pytest

from zmask_export.profiling.overhead import EVENTS, event_cost, steps_graph, steps_input
from zmask_export.profiling.parts import RUNTIME, PartTimes, profiled
from zmask_export.profiling.sessions import bound


def _run(recorded: float) -> PartTimes:
    return PartTimes(0.0, {"network": recorded}, {"network": EVENTS}, {"gate": EVENTS})


def test_an_event_costs_what_a_profiled_run_takes_longer() -> None:
    found = event_cost([2.0] * 3, [2.0 + EVENTS * 0.01] * 3, [_run(2.0 + EVENTS * 0.007)] * 3)
    assert found.inside == pytest.approx(0.007)
    assert found.outside == pytest.approx(0.003)


def test_noise_makes_no_negative_cost() -> None:
    found = event_cost([5.0], [4.0], [_run(9.0)])
    assert (found.inside, found.outside) == (0.0, 0.0)


def test_the_profile_of_the_steps_has_all_events() -> None:
    with profiled(steps_graph(), threads=1) as watched:
        run = bound(watched.session, steps_input())
        run()
        (found,) = watched.runs()
    assert found.events == {"network": EVENTS, "gate": 1}
    assert found.held == {"gate": EVENTS, RUNTIME: 1}

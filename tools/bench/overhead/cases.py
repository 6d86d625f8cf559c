"""What is timed side by side: bare and protected, on every runner, each a function that runs it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from overhead.graphs import Graphs
from overhead.record import Timing
from zmask_export.profiling.frames import FRAMES, Frame, feed
from zmask_export.profiling.sessions import Device, bound, open_session
from zmask_export.profiling.timing import ratio, spread, take_turns
from zmask_export.spec import Policy


class Case(NamedTuple):
    """One case; see :class:`record.Timing`."""

    runner: str
    name: str
    frame: Frame | None


Cases = dict[Case, Callable[[], object]]

DEPLOYED = "onnxruntime"
"""Runners of what this package deploys begin so."""


def kinds(policies: tuple[Policy, ...] = tuple(Policy)) -> list[tuple[str, Frame | None]]:
    """``bare``, and every policy with either frame; no graph comes twice in a row, warm from itself."""
    return [("bare", None), *((policy.value, frame) for frame in FRAMES for policy in policies)]


def onnxruntime_cases(graphs: Graphs, batch: int, device: Device, threads: int) -> Cases:
    """Every graph in ONNX Runtime on one device."""
    models = {"bare": graphs.bare} | {p.value: model for p, model in graphs.protected.items()}
    sessions = {name: open_session(model, threads, device) for name, model in models.items()}
    images = graphs.images(batch)
    return {
        Case(f"{DEPLOYED}-{device}", name, frame): bound(
            sessions[name], feed(images, frame), device
        )
        for name, frame in kinds()
    }


def time_cases(cases: Cases, batch: int, rounds: int) -> list[Timing]:
    """Run all cases in turns.

    Args:
        cases: of any runners; every runner has a ``bare``.
        batch: images a run.
        rounds: that count.
    """
    times = take_turns(cases, rounds)
    timings = []
    for case, taken in times.items():
        device = case.runner.rpartition("-")[2]
        twin = Case(f"{DEPLOYED}-{device}", case.name, case.frame)
        other = times.get(twin) if twin != case else None
        bare = times[Case(case.runner, "bare", None)]
        timings.append(
            Timing(
                runner=case.runner,
                case=case.name,
                frame=case.frame,
                batch=batch,
                ms=spread(taken),
                over_bare=None if case.name == "bare" else ratio(taken, bare),
                over_deployed=None if other is None else ratio(taken, other),
            )
        )
    return timings

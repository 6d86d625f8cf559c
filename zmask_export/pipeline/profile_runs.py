"""The runs of a profile: bare and protected in turns, profiled runs beside plain ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from zmask_export.fuse.unfuse import bare_of
from zmask_export.pipeline.profile_frames import Frames
from zmask_export.pipeline.progress import Reporter
from zmask_export.profiling.frames import Frame
from zmask_export.profiling.latency import latency
from zmask_export.profiling.overhead import event_cost, steps_graph, steps_input
from zmask_export.profiling.parts import profiled
from zmask_export.profiling.record import Attribution, Case, CaseName, attribution
from zmask_export.profiling.sessions import Device, bound, open_session
from zmask_export.profiling.timing import ratio, take_turns

MOST_ROUNDS, LEAST_ROUNDS = 200, 3
"""Rounds of a batch's cases."""
_PROFILED_ROUNDS = 16
"""Rounds that are profiled; a profile has thousands of events a run."""


@dataclass
class Work:
    """One graph, the bare network out of it, and what they are run on.

    Attributes:
        graph: the protected graph's file.
        threads: CPU threads of every session.
        device: where latencies are measured; parts always on the CPU.
        frames: clean and attacked.
        reporter: told of the rounds.
        left_out: what cannot be measured, and why.
    """

    graph: bytes
    threads: int
    device: Device
    frames: tuple[Frames, Frames]
    reporter: Reporter
    left_out: list[str] = field(default_factory=list)

    @functools.cached_property
    def bare(self) -> bytes:
        """The network alone."""
        return bare_of(self.graph)

    def time(self, batch: int, seconds: float, at_least: int = LEAST_ROUNDS) -> list[Case]:
        """Bare and protected, on either kind of frame, in turns.

        Args:
            batch: images a run.
            seconds: after which no further round starts, once there are ``at_least``.
            at_least: rounds.
        """
        graph = open_session(self.graph, self.threads, self.device)
        bare = open_session(self.bare, self.threads, self.device)
        clean, attacked = (frames.inputs(batch) for frames in self.frames)
        runs: dict[tuple[CaseName, Frame | None], Callable[[], None]] = {
            ("bare", None): bound(bare, clean, self.device),
            ("protected", "clean"): bound(graph, clean, self.device),
            ("protected", "attacked"): bound(graph, attacked, self.device),
        }
        with self.reporter.bar(f"batch {batch}", MOST_ROUNDS) as advance:
            times = take_turns(
                runs, MOST_ROUNDS, seconds=seconds, at_least=at_least, on_round=advance
            )
        alone = times["bare", None]
        return [
            Case(
                case=case,
                frame=frame,
                batch=batch,
                latency=latency(taken, batch),
                over_bare=None if case == "bare" else ratio(taken, alone),
                rounds_ms=tuple(taken),
            )
            for (case, frame), taken in times.items()
        ]

    def attribute(self, batch: int, seconds: float) -> tuple[Attribution, ...]:
        """Profiled runs in turns with plain ones; the same of a graph that shows what an event costs."""
        plain = open_session(self.graph, self.threads)
        steps = open_session(steps_graph(), self.threads)
        order: list[Frame] = []
        runs: dict[tuple[Frame | None, bool], Callable[[], None]] = {}
        with (
            profiled(self.graph, self.threads) as watched,
            profiled(steps_graph(), self.threads) as watched_steps,
        ):
            runs[None, False] = bound(steps, steps_input())
            runs[None, True] = bound(watched_steps.session, steps_input())
            for frames in self.frames:
                inputs = frames.inputs(batch)
                runs[frames.kind, False] = bound(plain, inputs)
                runs[frames.kind, True] = _noted(
                    bound(watched.session, inputs), functools.partial(order.append, frames.kind)
                )
            with self.reporter.bar("parts", _PROFILED_ROUNDS) as advance:
                times = take_turns(
                    runs, _PROFILED_ROUNDS, seconds=seconds, at_least=LEAST_ROUNDS, on_round=advance
                )
            found = list(zip(order, watched.runs(), strict=True))
            cost = event_cost(times[None, False], times[None, True], watched_steps.runs()[1:])
        # The first run of each is the warm-up.
        return tuple(
            attribution(
                frames.kind,
                batch,
                [run for kind, run in found if kind == frames.kind][1:],
                times[frames.kind, False],
                cost,
            )
            for frames in self.frames
        )


def _noted(run: Callable[[], None], note: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        note()
        run()

    return both

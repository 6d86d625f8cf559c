"""latency.json: what a bundle costs on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from zmask_export.artifacts.manifest import EngineInfo
from zmask_export.profiling.frames import Frame
from zmask_export.profiling.latency import Latency
from zmask_export.profiling.machine import Machine
from zmask_export.profiling.memory import Growth
from zmask_export.profiling.overhead import EventCost
from zmask_export.profiling.parts import RUNTIME, PartTimes, mean
from zmask_export.profiling.timing import Spread, middle_half
from zmask_export.spec import Policy, Size, Spec

CaseName = Literal["bare", "protected"]


class FrameInfo(Spec):
    """What stood for clean or for attacked frames.

    Attributes:
        frame: which.
        about: in words, with the threshold that the runs were given.
        threshold: that threshold.
        images: names.
        flagged: share of them that the calibrated threshold flags.
    """

    frame: Frame
    about: str
    threshold: float
    images: tuple[str, ...]
    flagged: Annotated[float, Field(ge=0, le=1)]


class Case(Spec):
    """The times of one graph on one kind of frames.

    Attributes:
        case: the protected graph, or the network alone out of the same graph.
        frame: None for the bare network, which does the same for both.
        batch: images a run.
        latency: in milliseconds.
        over_bare: ratio to the bare network of the same batch, round by round; None for itself.
        rounds_ms: every run, in order.
    """

    case: CaseName
    frame: Frame | None
    batch: int
    latency: Latency
    over_bare: Spread | None
    rounds_ms: tuple[float, ...]

    @property
    def label(self) -> str:
        """The case in words, without its batch."""
        return self.case if self.frame is None else f"{self.case}, {self.frame}"


class Attribution(Spec):
    """Where a run's time goes, by ONNX Runtime's profile on the CPU.

    Profiled and other runs took turns; of both the middle half counts, as its mean.

    Attributes:
        frame, batch: of the runs.
        measured_ms: a run without a profile.
        profiled_ms: a run with one.
        profiler_ms: what writing it cost, by what an event of a loop of small nodes costs; taken off the
            parts, each by the number of its nodes.
        parts_ms: by part: ``network``, ``zscore/TAP``, ``cascade/TAP``, ``fusion``, ``gate``,
            ``second_pass``, ``suppression``.
        between_nodes_ms: what is left of the profiled run.
    """

    frame: Frame
    batch: int
    measured_ms: float
    profiled_ms: float
    profiler_ms: float
    parts_ms: dict[str, float]
    between_nodes_ms: float

    @property
    def accounted(self) -> float:
        """The parts in sum over the measured run; 1 where the profile explains all of it."""
        return sum(self.parts_ms.values()) / self.measured_ms

    def part(self, name: str) -> float:
        """Milliseconds of a part, over its taps."""
        return sum(ms for part, ms in self.parts_ms.items() if part.split("/")[0] == name)


class Memory(Spec):
    """Resident memory of a session on the CPU, in a process of its own."""

    case: CaseName
    batch: int
    growth: Growth


class LatencyReport(Spec):
    """The content of latency.json.

    Attributes:
        graph_sha256: of the graph that was run.
        runner: ``onnxruntime-cpu`` or ``onnxruntime-cuda``.
        seconds: how long all of it took.
        engines: what the compilers said, from the manifest.
        left_out: what could not be measured, and why.
    """

    schema_version: Literal[1] = 1
    tool_version: str
    name: str
    model: str
    policy: Policy
    graph_sha256: str
    input_size: Size
    runner: str
    machine: Machine
    versions: dict[str, str]
    seconds: float
    frames: tuple[FrameInfo, ...]
    cases: tuple[Case, ...]
    parts: tuple[Attribution, ...]
    memory: tuple[Memory, ...]
    engines: tuple[EngineInfo, ...]
    left_out: tuple[str, ...] = ()

    def find(self, case: CaseName, frame: Frame | None, batch: int) -> Case:
        """One case."""
        return next(
            found
            for found in self.cases
            if (found.case, found.frame, found.batch) == (case, frame, batch)
        )

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes, in order."""
        return tuple(dict.fromkeys(case.batch for case in self.cases))


def attribution(
    frame: Frame,
    batch: int,
    profiled: Sequence[PartTimes],
    plain: Sequence[float],
    cost: EventCost,
) -> Attribution:
    """Put profiled runs beside plain ones.

    Args:
        frame, batch: of the runs.
        profiled: runs with a profile.
        plain: milliseconds of the runs without.
        cost: what an event costs the profiler.
    """
    found = mean(middle_half(sorted(profiled, key=lambda run: run.total_ms)))
    middle = middle_half(sorted(plain))
    parts = cost.taken_off(found)
    between = parts.pop(RUNTIME, 0.0)
    return Attribution(
        frame=frame,
        batch=batch,
        measured_ms=sum(middle) / len(middle),
        profiled_ms=found.total_ms,
        profiler_ms=cost.of(found),
        parts_ms=parts,
        between_nodes_ms=between,
    )

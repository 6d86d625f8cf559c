"""What the benchmark writes: one JSON file, losses included."""

from __future__ import annotations

from typing import Literal

from measuring.machine import Machine

from zmask_export.profiling.frames import Frame
from zmask_export.profiling.timing import Spread
from zmask_export.spec import Size, Spec


class Timing(Spec):
    """One case: what ran, on what, and how long.

    Attributes:
        runner: ``onnxruntime-cpu``, ``pytorch-cpu``, ``pytorch-compile-cpu``, ``tensorrt-rtx-cuda`` ...
        case: ``bare``, or a policy.
        frame: which branch the gate took; None for ``bare``, which has no gate.
        batch: images a run.
        ms: milliseconds a run.
        over_bare: ratio to ``bare`` of the same runner and batch, round by round.
        over_deployed: ratio to the same case in ONNX Runtime on the same device, round by round.
    """

    runner: str
    case: str
    frame: Frame | None
    batch: int
    ms: Spread
    over_bare: Spread | None
    over_deployed: Spread | None = None


class Parts(Spec):
    """Where a run's time goes, by ONNX Runtime's own profile.

    Attributes:
        case, frame, batch: see :class:`Timing`.
        total_ms: a run.
        parts_ms: by part: ``network``, ``zscore/TAP``, ``cascade/TAP``, ``fusion``, ``gate``,
            ``second_pass``, ``suppression``; ``runtime`` is what lies between operators.
    """

    case: str
    frame: Frame | None
    batch: int
    total_ms: float
    parts_ms: dict[str, float]

    def share(self, part: str) -> float:
        """Milliseconds of a part, over its taps."""
        return sum(ms for name, ms in self.parts_ms.items() if name.split("/")[0] == part)


class TapCascade(Spec):
    """One tap's cascade, from z-scores to its heatmaps, batch 1.

    Attributes:
        shape: (C, h, w).
        lowering: the deployed form in words.
        literal_ms: Eq. 3 as written in PyTorch, with maps in PyTorch's own layout.
        channels_last_ms: the same with channels-last maps, which PyTorch averages faster.
        deployed_ms: the graph in ONNX Runtime.
        difference: largest |deployed - literal| of a heatmap over that heatmap's maximum.
        pointwise_difference: largest |deployed - literal| / literal of any cell.
        literal_error, deployed_error: the difference of each to Eq. 3 in float64, over the maximum. A
            window's sum of thousands of float32 numbers rounds, so the literal form is not the truth.
    """

    tap: str
    shape: tuple[int, int, int]
    lowering: str
    literal_ms: Spread
    channels_last_ms: Spread
    deployed_ms: Spread
    difference: float
    pointwise_difference: float
    literal_error: float
    deployed_error: float


class Cascade(Spec):
    """The whole cascade stage: the taps in sum.

    ``speedup`` is literal over deployed, ``channels_last_speedup`` channels-last over deployed, round by
    round; ``worst_difference`` and ``worst_error`` are the largest ``difference`` and ``deployed_error``.
    """

    taps: tuple[TapCascade, ...]
    speedup: Spread
    channels_last_speedup: Spread
    worst_difference: float
    worst_error: float


class Rates(Spec):
    """What ONNX Runtime reaches here, best of the rounds: a floor must not be too high.

    Attributes:
        gflops: of a large float32 matrix product (a multiply-add is two operations).
        cached_gbs: bytes read and written by an element-wise product of arrays that fit the caches.
        copy_gbs: the same of arrays that do not.
    """

    gflops: float
    cached_gbs: float
    copy_gbs: float


class TapFloor(Spec):
    """What the plan of one tap cannot go below on this machine, for one image.

    Attributes:
        multiply_adds, bytes: of the plan.
        compute_ms: of the multiply-adds at the rate of a matrix product.
        move_ms: of the bytes at the rate of cached arrays.
        floor_ms: the larger of the two.
        measured_ms: the deployed cascade, median of the same rounds.
    """

    tap: str
    multiply_adds: int
    bytes: int
    compute_ms: float
    move_ms: float
    floor_ms: float
    measured_ms: float


class Floor(Spec):
    """The floor of all taps."""

    rates: Rates
    taps: tuple[TapFloor, ...]

    @property
    def floor_ms(self) -> float:
        """Of the whole cascade stage."""
        return sum(tap.floor_ms for tap in self.taps)

    @property
    def measured_ms(self) -> float:
        """The whole cascade stage as deployed."""
        return sum(tap.measured_ms for tap in self.taps)


class EngineMemory(Spec):
    """What the compiler says of an engine; ratios to the bare network's engine of the same batch."""

    flavour: str
    case: str
    batch: int
    activation_bytes: int
    weight_bytes: int
    activations_over_bare: float | None
    weights_over_bare: float | None


class Point(Spec):
    """One point of a scaling curve.

    ``x`` is what grows (pixels, channels, taps), ``label`` names it; ``bare_ms`` is None where a cascade
    runs alone.
    """

    x: int
    label: str
    protected_ms: Spread
    bare_ms: Spread | None
    over_bare: Spread | None


class Curve(Spec):
    """How the time grows with one quantity, everything else kept."""

    over: Literal["resolution", "channels", "taps"]
    what: str
    points: tuple[Point, ...]


class Bar(Spec):
    """A figure and the bar that it should keep.

    ``floor`` is what the figure would be with a cascade at its floor; None where none was measured.
    """

    what: str
    measured: float
    limit: float
    at: Literal["most", "least"]
    floor: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the figure keeps the bar."""
        return self.measured <= self.limit if self.at == "most" else self.measured >= self.limit


class LeftOut(Spec):
    """What was not measured, and why."""

    what: str
    reason: str


class Record(Spec):
    """One run of the benchmark.

    ``preset`` is a name or the network's own; ``weights`` the fingerprint of the weights.
    """

    schema_version: Literal[1] = 1
    model: str
    preset: str
    weights: str
    input_size: Size
    grid: Size
    registration: str
    taps: tuple[str, ...]
    quick: bool
    machine: Machine
    timings: tuple[Timing, ...] = ()
    parts: tuple[Parts, ...] = ()
    cascade: Cascade | None = None
    floor: Floor | None = None
    memory: tuple[EngineMemory, ...] = ()
    scaling: tuple[Curve, ...] = ()
    bars: tuple[Bar, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

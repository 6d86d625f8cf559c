"""What a lowering costs: operations, bytes, scratch memory, and seconds on a kind of machine.

The model is coarse and only has to rank forms of one tap: time is multiply-adds over the rate of matrix
products, plus bytes over that of element-wise passes, plus a fixed time an operator.
``tools/bench/lowerings.py`` checks the ranking against measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from zmask_export.fuse.bands import Stage

_FLOAT = 4


@dataclass(frozen=True)
class Machine:
    """Rates that rank lowerings.

    Attributes:
        multiply_adds: of matrix products, a second.
        bytes: of element-wise operators, read and written, a second.
        call: seconds that an operator takes however small it is.
        most_scratch: bytes of maps at one time that a form may need, where another needs less.
        unlooped: taps of at most so many channels never run in a loop.
        looped_strips: numbers of strips that are tried inside a loop.
    """

    multiply_adds: float
    bytes: float
    call: float
    most_scratch: int
    unlooped: int
    looped_strips: tuple[int, ...]


CPU = Machine(2e11, 1.5e11, 4e-6, 32 << 20, unlooped=0, looped_strips=(1, 2, 3, 4, 6, 8))
"""Two to eight cores with wide vectors, ONNX Runtime."""
GPU = Machine(1e13, 5e11, 5e-6, 16 << 20, unlooped=64, looped_strips=(1,))
"""TensorRT: operators take time to start, a loop copies its tap, each strip in it has memory of its own."""
SMALL_GPU = Machine(1e13, 5e11, 5e-6, 6 << 20, unlooped=0, looped_strips=(1,))
"""TensorRT where even a tap of few channels is too much to hold at once."""


@dataclass(frozen=True)
class Cost:
    """For one image.

    Attributes:
        multiply_adds: of matrix products.
        bytes: read and written by operators.
        calls: operators that run.
        scratch_bytes: of the maps that are alive together, roughly.
        weight_bytes: of the matrices.
        seconds: what a machine's rates make of it.
    """

    multiply_adds: int = 0
    bytes: int = 0
    calls: int = 0
    scratch_bytes: int = 0
    weight_bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.multiply_adds + other.multiply_adds,
            self.bytes + other.bytes,
            self.calls + other.calls,
            max(self.scratch_bytes, other.scratch_bytes),
            self.weight_bytes + other.weight_bytes,
            self.seconds + other.seconds,
        )

    def repeated(self, times: int) -> Cost:
        """The same in a loop: memory and weights stay."""
        return Cost(
            self.multiply_adds * times,
            self.bytes * times,
            self.calls * times,
            self.scratch_bytes,
            self.weight_bytes,
            self.seconds * times,
        )

    @classmethod
    def of(
        cls,
        machine: Machine,
        *,
        multiply_adds: int = 0,
        elements: int = 0,
        calls: int = 1,
        alive: int = 0,
        weights: int = 0,
    ) -> Cost:
        """Of ``elements`` float32 numbers read or written, and ``alive`` ones held."""
        moved = elements * _FLOAT
        seconds = (
            multiply_adds / machine.multiply_adds + moved / machine.bytes + calls * machine.call
        )
        return cls(multiply_adds, moved, calls, alive * _FLOAT, weights * _FLOAT, seconds)

    @classmethod
    def passes(cls, elements: int, count: int, calls: int, machine: Machine) -> Cost:
        """``count`` passes over ``elements`` numbers, split over ``calls`` operators."""
        return cls.of(machine, elements=elements * count, calls=calls, alive=elements)

    @classmethod
    def copy(cls, elements: int, machine: Machine) -> Cost:
        """A transposing copy, which strides through memory and costs as four plain ones."""
        return cls.of(machine, elements=8 * elements, calls=2, alive=elements)


def product_cost(stage: Stage, channels: int, machine: Machine) -> Cost:
    """Of L z W^T over a block of channels, strip by strip, the cheaper product first."""
    n1, (g2, n2) = stage.first.shape[1], stage.second.shape
    cost = Cost(weight_bytes=stage.second.size * _FLOAT)
    alive = channels * (2 * stage.first.shape[0] * g2 + n1 * n2) // len(stage.strips)
    for strip in stage.strips:
        inner = strip.height * n2 if stage.first_first(strip) else strip.depth * g2
        sliced = 0 if strip.depth == n1 else 2 * strip.depth * n2
        cost += Cost.of(
            machine,
            multiply_adds=channels * stage.multiply_adds(strip),
            elements=channels * (sliced + 2 * inner + 2 * strip.height * g2),
            calls=2 + 2 * (sliced > 0),
            alive=alive,
            weights=strip.height * strip.depth,
        )
    return cost

"""What a lowering costs: operations, bytes, scratch memory, and seconds on a kind of machine.

The model is coarse and only has to rank forms of one tap: time is multiply-adds over the rate of matrix
products, plus bytes over that of element-wise passes, plus a fixed time an operator.
``tools/bench/lowerings.py`` checks the ranking against measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_FLOAT = 4


class Banded(Protocol):
    """Two matrices, the first in strips."""

    @property
    def first(self) -> NDArray[np.float64]: ...
    @property
    def second(self) -> NDArray[np.float64]: ...
    @property
    def strips(self) -> Sequence[Band]: ...


class Band(Protocol):
    """Rows ``start:stop`` of a matrix and the columns ``low:high`` that are not zero in them."""

    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...


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


def product_cost(stage: Banded, channels: int, machine: Machine) -> Cost:
    """Of L z W^T over a block of channels, strip by strip, the cheaper product first."""
    n1, (g2, n2) = stage.first.shape[1], stage.second.shape
    cost = Cost(weight_bytes=stage.second.size * _FLOAT)
    alive = channels * (2 * stage.first.shape[0] * g2 + n1 * n2) // len(stage.strips)
    for strip in stage.strips:
        height, depth = strip.stop - strip.start, strip.high - strip.low
        inner = height * n2 if first_first(stage, strip) else depth * g2
        sliced = 0 if depth == n1 else 2 * depth * n2
        cost += Cost.of(
            machine,
            multiply_adds=channels * multiply_adds(stage, strip),
            elements=channels * (sliced + 2 * inner + 2 * height * g2),
            calls=2 + 2 * (sliced > 0),
            alive=alive,
            weights=height * depth,
        )
    return cost


def multiply_adds(stage: Banded, strip: Band) -> int:
    """Of one strip and one channel, in the cheaper order."""
    return min(_orders(stage, strip))


def first_first(stage: Banded, strip: Band) -> bool:
    """Whether the strip's own matrix is better applied before the other axis' one."""
    first, second = _orders(stage, strip)
    return first < second


def _orders(stage: Banded, strip: Band) -> tuple[int, int]:
    g2, n2 = stage.second.shape
    height, depth = strip.stop - strip.start, strip.high - strip.low
    return height * depth * n2 + height * n2 * g2, depth * n2 * g2 + height * depth * g2

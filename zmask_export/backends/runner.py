"""The one contract of everything that runs a graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from zmask_export.errors import ShapeError, UsageError

Arrays = dict[str, NDArray[Any]]
DeviceKind = Literal["cpu", "cuda"]

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class DeviceArray:
    """float32, contiguous, in memory that another library owns; ready to be read.

    Attributes:
        pointer: address of the first element on the device.
        shape: axes, first the batch.
        kind: which memory it is.
        number: which GPU.
        owner: keeps the memory alive.
    """

    pointer: int
    shape: tuple[int, ...]
    kind: DeviceKind
    number: int
    owner: object

    def __len__(self) -> int:
        """Images in the batch."""
        return self.shape[0]

    def rows(self, start: int, stop: int) -> DeviceArray:
        """Images ``start`` to ``stop`` in the same memory."""
        stride = _FLOAT_BYTES * int(np.prod(self.shape[1:], dtype=np.int64))
        return replace(
            self, pointer=self.pointer + start * stride, shape=(stop - start, *self.shape[1:])
        )


Inputs = Mapping[str, NDArray[Any] | DeviceArray]


class Runner(Protocol):
    """Runs a protected graph. Threads may share it.

    Attributes:
        name: what runs it, such as ``onnxruntime-cpu``.
    """

    name: str

    def run(self, inputs: Inputs) -> Arrays:
        """All outputs by name, in main memory.

        Args:
            inputs: ``image`` float32 (N, 3, H, W) in [0, 1], which may lie on the runner's GPU;
                ``threshold`` float32 (1,).

        Raises:
            BackendError: the runner failed.
            ShapeError: an input has another shape or dtype than the graph's, or lies where the
                runner cannot read it.
            UsageError: the runner is closed.
        """
        ...

    def close(self) -> None:
        """Give memory back; what runs at the moment ends well."""
        ...


def require_input(inputs: Inputs, name: str, shape: Sequence[object]) -> NDArray[Any] | DeviceArray:
    """An input that a graph can take.

    Args:
        inputs: by name.
        name: which one.
        shape: the graph's; what is no positive integer may be anything.

    Raises:
        ShapeError: it is missing, no float32, or has another shape.
    """
    if name not in inputs:
        raise ShapeError(f"The input {name} is missing.", fix="Give it as a float32 array.")
    value = inputs[name]
    if not isinstance(value, DeviceArray) and value.dtype != np.float32:
        raise ShapeError(f"The input {name} is {value.dtype}.", fix="Give it as a float32 array.")
    fits = len(value.shape) == len(shape) and all(
        not isinstance(want, int) or want < 0 or want == have
        for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"The input {name} has shape {value.shape}; the graph takes {tuple(shape)}.",
            fix="Resize the image, or build with another --input-size or --batch.",
        )
    return value


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def closed() -> UsageError:
    """The error of a runner that is used after its end."""
    return UsageError("The engine is closed.", fix="Load the bundle again.")

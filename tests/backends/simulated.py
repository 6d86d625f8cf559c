"""A stand-in for a GPU and a TensorRT runtime, in main memory: what a run does without one.

Device memory is main memory of this process and an engine is a NumPy function, so a wrong address, size
or order gives wrong numbers. Calls have the names and arguments of the real packages.
"""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace
from typing import Any

import numpy as np


class Error(enum.Enum):
    """Codes of CUDA that are needed here."""

    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815


class Cuda:
    """``cuda.bindings.runtime``; copies happen when the stream is waited for.

    Args:
        memory: bytes that may be allocated.
    """

    cudaError_t = Error  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )

    def __init__(self, memory: int = 1 << 30) -> None:
        self.free = memory
        self.blocks: dict[int, Any] = {}
        self.streams = 0
        self.device = 1  # another one than the engine's
        self.queue: list[Any] = []

    def cudaGetErrorString(self, code: Error) -> tuple[Error, bytes]:  # noqa: N802
        return Error.cudaSuccess, code.name.encode()

    def cudaGetDevice(self) -> tuple[Error, int]:  # noqa: N802
        return Error.cudaSuccess, self.device

    def cudaSetDevice(self, number: int) -> tuple[Error]:  # noqa: N802
        self.device = number
        return (Error.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Error, int]:  # noqa: N802
        self.streams += 1
        return Error.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[Error]:  # noqa: N802
        self.streams -= 1
        return (Error.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Error, int]:  # noqa: N802
        if size > self.free:
            return Error.cudaErrorMemoryAllocation, 0
        self.free -= size
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return Error.cudaSuccess, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[Error]:  # noqa: N802
        self.free += len(self.blocks.pop(address))
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Error]:
        inside = source if kind == 2 else target
        assert size <= len(self.blocks[inside])
        self.queue.append(lambda: ctypes.memmove(target, source, size))
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:  # noqa: N802
        for step in self.queue:
            step()
        self.queue.clear()
        return (Error.cudaSuccess,)


def _array(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(block, dtype).reshape(shape)


LARGEST = 4
_TENSORS = {
    "image": ("INPUT", "FLOAT", (-1, 3, 4, 5)),
    "threshold": ("INPUT", "FLOAT", (1,)),
    "score": ("OUTPUT", "FLOAT", (-1,)),
    "flag": ("OUTPUT", "BOOL", (-1,)),
    "labels": ("OUTPUT", "INT64", (-1, 2)),
}


class Context:
    """``IExecutionContext`` of :class:`Engine`: score = the image's sum, flag, labels = its place."""

    def __init__(self, cuda: Cuda, log: Any) -> None:
        self.cuda, self.log = cuda, log
        self.batch = 0
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name == "image":
            if shape[0] > LARGEST:
                self.log.log(Severity.ERROR, "the profile's largest batch is 4")
                return False
            self.batch = shape[0]
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.batch if axis == -1 else axis for axis in _TENSORS[name][2])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        at, n = dict(self.addresses), self.batch
        assert self.cuda.device == 0

        def step() -> None:
            image = _array(at["image"], (n, 3, 4, 5), np.float32)
            limit = _array(at["threshold"], (1,), np.float32)[0]
            score = _array(at["score"], (n,), np.float32)
            score[:] = image.sum(axis=(1, 2, 3))
            _array(at["flag"], (n,), np.bool_)[:] = score > limit
            _array(at["labels"], (n, 2), np.int64)[:] = np.arange(2 * n).reshape(n, 2)

        self.cuda.queue.append(step)
        return True


class Severity(enum.Enum):
    """Of log lines."""

    INTERNAL_ERROR = 0
    ERROR = 1
    INFO = 3


class Logger:
    """``ILogger``."""

    Severity = Severity


class Mode(enum.Enum):
    """``TensorIOMode``."""

    INPUT = 1
    OUTPUT = 2


class Location(enum.Enum):
    """``TensorLocation``."""

    DEVICE = 0
    HOST = 1


class Engine:
    """``ICudaEngine``."""

    num_io_tensors = len(_TENSORS)

    def __init__(self, cuda: Cuda, log: Any) -> None:
        self.cuda, self.log = cuda, log

    def get_tensor_name(self, index: int) -> str:
        return list(_TENSORS)[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode[_TENSORS[name][0]]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=_TENSORS[name][1])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _TENSORS[name][2]

    def get_tensor_location(self, name: str) -> Location:
        return Location.HOST if name == "threshold" else Location.DEVICE

    def create_execution_context(self) -> Context:
        return Context(self.cuda, self.log)


class Runtime:
    """``Runtime``."""

    def __init__(self, cuda: Cuda, logger: Any) -> None:
        self.cuda, self.log = cuda, logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        if serialized_engine != b"engine":
            self.log.log(Severity.ERROR, "Magic tag does not match")
            return None
        return Engine(self.cuda, self.log)


def tensorrt(cuda: Cuda) -> Any:
    """The package."""
    return SimpleNamespace(
        ILogger=Logger, TensorIOMode=Mode, TensorLocation=Location,
        Runtime=lambda logger: Runtime(cuda, logger),
    )  # fmt: skip

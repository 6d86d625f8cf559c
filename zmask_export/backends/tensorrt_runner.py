"""Compiled engines on a GPU: TensorRT and TensorRT-RTX, one code path, two flavours.

An execution context serves one run at a time. The runner has one and a lock: a GPU works on one frame
after the other anyway, and a context a thread would cost the engine's activation memory each time.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmask_export.backends import tensorrt
from zmask_export.backends.compiler import short
from zmask_export.backends.cuda import CudaDevice, runtime
from zmask_export.backends.gpu import compute_capability, gpu_count
from zmask_export.backends.runner import Arrays, DeviceArray, Inputs, closed, require_input
from zmask_export.backends.tensorrt import Flavour
from zmask_export.errors import BackendError, BackendUnavailableError, ShapeError

_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
_DEFAULT_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""What a tensorrt-rtx engine runs on for which none was chosen."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        name: of the graph.
        is_input: or an output.
        dtype: of its elements.
        shape: -1 where an axis is free.
        in_main_memory: the engine reads it there, not on the GPU.
    """

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    in_main_memory: bool


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's form of a TensorRT data type such as ``FLOAT``.

    Raises:
        BackendError: NumPy has none.
    """
    if name not in _DTYPES:
        raise BackendError(
            f"The engine has a tensor of type {name}, which NumPy has not.",
            fix="Build with float32 outputs, or load with backend onnxruntime.",
        )
    return np.dtype(_DTYPES[name])


def fits(capability: str, flavour: Flavour, capabilities: Iterable[str]) -> bool:
    """Whether an engine may run on a GPU.

    Args:
        capability: of the GPU, such as "8.9".
        flavour: of the engine.
        capabilities: that it was compiled for; empty takes the flavour's default. What TensorRT
            builds without any is for the GPU it was built on, which only its runtime can tell.
    """
    wanted = tuple(capabilities) or (_DEFAULT_CAPABILITIES if flavour == "tensorrt-rtx" else ())
    return not wanted or capability in wanted


def require_runnable(flavour: Flavour, capabilities: Iterable[str]) -> ModuleType:
    """The flavour's Python module, where an engine of it may run here.

    Args:
        flavour: of the engine.
        capabilities: see :func:`fits`.

    Raises:
        BackendUnavailableError: no GPU, one of another generation, or a package that is missing.
    """
    other = "or load the bundle with backend onnxruntime"
    capability = compute_capability() if gpu_count() else None
    if capability is None:
        raise BackendUnavailableError(
            f"A {flavour} engine needs an NVIDIA GPU, and this machine shows none.",
            fix=f"Run on a machine with a GPU and its driver, {other}.",
        )
    if not fits(capability, flavour, capabilities):
        raise BackendUnavailableError(
            f"The {flavour} engine is not for this GPU's compute capability {capability}.",
            fix=f"Build with --compute-capability {capability} where the compiler has it, {other}.",
        )
    runtime()
    reason = tensorrt.available(flavour)
    if reason is not None:
        raise BackendUnavailableError(
            reason, fix=f"Install it ({tensorrt.INSTALL[flavour]}), {other}."
        )
    return tensorrt.require(flavour)


def deserialise(trt: ModuleType, flavour: Flavour, data: bytes, log: Any) -> tuple[Any, Any]:
    """A runtime and the engine in it.

    Args:
        trt: the flavour's module.
        flavour: what messages call it.
        data: the serialised engine.
        log: of :func:`error_log`.

    Raises:
        BackendError: it is refused, with the runtime's own reason.
    """
    fix = "Build the bundle again with this version, for this GPU, or take backend onnxruntime."
    try:
        opened = trt.Runtime(log)
        engine = opened.deserialize_cuda_engine(data)
    except (RuntimeError, TypeError) as exc:
        raise BackendError(f"The {flavour} runtime cannot start ({short(exc)}).", fix=fix) from exc
    if engine is None:
        raise BackendError(
            f"The {flavour} runtime refuses the engine: {short(log.problem())}.", fix=fix
        )
    return opened, engine


def error_log(trt: ModuleType) -> Any:
    """A logger that keeps the last errors and prints nothing."""

    class ErrorLog(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._errors = [*self._errors[-3:], message]

        def problem(self) -> str:
            return "; ".join(self._errors) or "it gives no reason"

    return ErrorLog()


class TensorRtRunner:
    """Runs a compiled engine on the first GPU. Threads take turns.

    Args:
        engine: its bytes.
        flavour: which runtime.
        capabilities: what it was compiled for; see :func:`fits`.

    Raises:
        BackendUnavailableError: it cannot run here, with the reason.
        BackendError: the runtime refuses the engine, or CUDA fails.
    """

    def __init__(self, engine: bytes, flavour: Flavour, capabilities: Iterable[str] = ()) -> None:
        trt = require_runnable(flavour, capabilities)
        self.name: str = flavour
        self._lock = threading.Lock()
        self._log = error_log(trt)
        self._device = CudaDevice()
        self._release = weakref.finalize(self, self._device.release)
        self._runtime, self._engine = deserialise(trt, flavour, engine, self._log)
        self._tensors = _tensors(trt, self._engine)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._failed("cannot prepare the engine")

    def run(self, inputs: Inputs) -> Arrays:
        with self._lock:
            if self._context is None:
                raise closed()
            try:
                return self._run(inputs)
            except BaseException:
                # What is queued still reads and writes arrays that are let go of now.
                with contextlib.suppress(BackendError):
                    self._device.wait()
                raise

    def _run(self, inputs: Inputs) -> Arrays:
        self._device.enter()
        held = [self._bind(tensor, inputs) for tensor in self._tensors if tensor.is_input]
        outputs = self._outputs()
        if not self._context.execute_async_v3(self._device.stream):
            raise self._failed("failed")
        for array, address in outputs.values():
            if array.ctypes.data != address:
                self._device.download(array, address)
        self._device.wait()
        del held  # read until here
        return {name: array for name, (array, _) in outputs.items()}

    def _bind(self, tensor: Tensor, inputs: Inputs) -> object:
        """Give the context an input; what must live until the run's end."""
        value = require_input(inputs, tensor.name, tensor.shape)
        if not self._context.set_input_shape(tensor.name, tuple(value.shape)):
            raise ShapeError(
                f"The {self.name} engine takes no {tensor.name} of shape {tuple(value.shape)} "
                f"({short(self._log.problem())}).",
                fix="Give fewer images at a time, or build with a larger --batch.",
            )
        if isinstance(value, DeviceArray):
            if (value.kind, value.number) != ("cuda", 0) or tensor.in_main_memory:
                raise ShapeError(
                    f"The image lies in memory of {value.kind} {value.number}, where "
                    f"{self.name} cannot read it.",
                    fix="Copy it to GPU 0 or to main memory.",
                )
            self._address(tensor.name, value.pointer)
            return value.owner
        array = np.ascontiguousarray(value)
        if tensor.in_main_memory:
            self._address(tensor.name, array.ctypes.data)
        else:
            address = self._device.room(tensor.name, array.nbytes)
            self._device.upload(address, array)
            self._address(tensor.name, address)
        return array

    def _outputs(self) -> dict[str, tuple[NDArray[Any], int]]:
        """Room for every output, here and where the engine writes it."""
        try:
            unknown = self._context.infer_shapes()
        except RuntimeError as exc:
            raise self._failed("cannot work out its shapes") from exc
        outputs = {}
        for tensor in self._tensors:
            if tensor.is_input:
                continue
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            if unknown or min(shape, default=0) < 0:
                raise self._failed(f"does not say how large {tensor.name} is")
            array = np.empty(shape, tensor.dtype)
            address = (
                array.ctypes.data
                if tensor.in_main_memory
                else self._device.room(tensor.name, array.nbytes)
            )
            self._address(tensor.name, address)
            outputs[tensor.name] = (array, address)
        return outputs

    def _address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise self._failed(f"refuses the memory of {name}")

    def _failed(self, what: str) -> BackendError:
        return BackendError(
            f"The {self.name} runtime {what} ({short(self._log.problem())}).",
            fix="Give a smaller batch or more memory, or take backend onnxruntime.",
        )

    def close(self) -> None:
        with self._lock:
            # In the order in which they hang on each other.
            self._context = self._engine = self._runtime = None
            self._release()


def _tensors(trt: ModuleType, engine: Any) -> tuple[Tensor, ...]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return tuple(
        Tensor(
            name,
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            numpy_dtype(engine.get_tensor_dtype(name).name),
            tuple(engine.get_tensor_shape(name)),
            engine.get_tensor_location(name) == trt.TensorLocation.HOST,
        )
        for name in names
    )

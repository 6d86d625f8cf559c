"""Compiled engines on a GPU: TensorRT and TensorRT-RTX, one code path, two flavours.

An execution context serves one run at a time. The runner has one and a lock: a GPU works on one frame
after the other anyway, and a context a thread would cost the engine's activation memory each time.
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmask_export.backends.compiler import short
from zmask_export.backends.cuda import CudaDevice
from zmask_export.backends.runner import Arrays, DeviceArray, Inputs, closed, require_input
from zmask_export.backends.tensorrt import Flavour
from zmask_export.backends.tensorrt_engine import (
    Tensor,
    deserialise,
    error_log,
    require_runnable,
    tensors,
)
from zmask_export.errors import BackendError, ShapeError

_ALIGNMENT = 256
"""Of the addresses that an engine reads; what lies otherwise is copied on the GPU."""


class TensorRtRunner:
    """Runs a compiled engine on the first GPU. Threads take turns.

    Args:
        engine: its bytes.
        flavour: which runtime.
        capabilities: what it was compiled for; see ``tensorrt_engine.fits``.

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
        self._tensors = tensors(trt, self._engine)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._failed("cannot prepare the engine")

    def run(self, inputs: Inputs) -> Arrays:
        with self._lock:
            if self._context is None:
                raise closed()
            with self._device.current():
                try:
                    return self._run(inputs)
                except BaseException:
                    # What is queued still reads and writes arrays that are let go of now.
                    with contextlib.suppress(BackendError):
                        self._device.wait()
                    raise

    def _run(self, inputs: Inputs) -> Arrays:
        self._log.forget()
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
            address = value.pointer
            if address % _ALIGNMENT:
                size = tensor.dtype.itemsize * math.prod(value.shape)
                address = self._device.room(tensor.name, size)
                self._device.move(address, value.pointer, size)
            self._address(tensor.name, address)
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

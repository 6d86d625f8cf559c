"""Opening compiled engines: whether one may run here, its runtime, what it reads and writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from zmask_export.backends import tensorrt
from zmask_export.backends.compiler import short
from zmask_export.backends.cuda import runtime
from zmask_export.backends.gpu import compute_capability, gpu_count
from zmask_export.backends.tensorrt import Flavour
from zmask_export.errors import BackendError, BackendUnavailableError

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

        def forget(self) -> None:
            self._errors = []

        def problem(self) -> str:
            return "; ".join(self._errors) or "it gives no reason"

    return ErrorLog()


def tensors(trt: ModuleType, engine: Any) -> tuple[Tensor, ...]:
    """Inputs and outputs of an engine, in its order."""
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

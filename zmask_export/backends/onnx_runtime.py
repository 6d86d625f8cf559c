"""ONNX Runtime: the runner that is everywhere."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from zmask_export.backends.runner import Arrays
from zmask_export.errors import BackendError, BackendUnavailableError, ShapeError
from zmask_export.spec import Precision

_ONLY_FATAL = 4


@functools.cache
def gpu_count() -> int:
    """Number of NVIDIA GPUs that the driver shows; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


class OnnxRuntimeRunner:
    """Runs an ONNX graph on a GPU where there is one, else on the CPU.

    On a CPU, a graph of fp16 or bf16 is run in a form of float32 that rounds to it, see
    :mod:`zmask_export.backends.rounding`; of bf16 on a GPU too, as not every operator is there in it. int8
    is run as its Q/DQ nodes say, with float32 products.

    Args:
        model: the graph's bytes.
        threads: CPU threads; 0 lets ONNX Runtime choose.
        precision: of the graph.

    Raises:
        BackendError: ONNX Runtime refuses the graph.
        BackendUnavailableError: the graph must be rounded, and the package onnx is not installed.
    """

    def __init__(self, model: bytes, *, threads: int = 0, precision: Precision = "fp32") -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ONLY_FATAL
        options.intra_op_num_threads = threads
        # Its int8 kernels saturate on processors without VNNI; engines do not.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # Asking for CUDA where no GPU is prints loader errors: look before asking.
        cuda = gpu_count() > 0 and "CUDAExecutionProvider" in ort.get_available_providers()
        # The parity contract is for float32: ONNX Runtime would take TF32 on a GPU.
        on_gpu = [("CUDAExecutionProvider", {"use_tf32": 0})] if cuda else []
        providers = [*on_gpu, "CPUExecutionProvider"]
        try:
            if precision == "bf16" or (precision == "fp16" and not cuda):
                model = _rounded(model)
            self._session = ort.InferenceSession(model, options, providers=providers)
        except BackendUnavailableError:
            raise
        except Exception as exc:  # ONNX Runtime's errors share no base class but this
            raise BackendError(
                f"ONNX Runtime cannot load the graph ({_short(exc)}).",
                fix="Build it again with this version of zmask-export and ONNX Runtime.",
            ) from exc
        used = self._session.get_providers()[0]
        self.name = f"onnxruntime-{used.removesuffix('ExecutionProvider').lower()}"
        self._shapes = {i.name: list(i.shape) for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        for name, shape in self._shapes.items():
            if name not in inputs or inputs[name].dtype != np.float32:
                have = f"is {inputs[name].dtype}" if name in inputs else "is missing"
                raise ShapeError(f"The input {name} {have}.", fix="Give it as a float32 array.")
            given = inputs[name].shape
            fits = len(given) == len(shape) and all(
                not isinstance(want, int) or want == have
                for want, have in zip(shape, given, strict=True)
            )
            if not fits:
                raise ShapeError(
                    f"The input {name} has shape {given}; the graph takes {tuple(shape)}.",
                    fix="Resize the image, or build with another --input-size or --batch.",
                )
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as exc:  # ONNX Runtime's errors share no base class but this
            raise BackendError(
                f"ONNX Runtime failed ({_short(exc)}).", fix="Give a smaller batch or more memory."
            ) from exc
        return dict(zip(self._outputs, values, strict=True))


def _rounded(model: bytes) -> bytes:
    try:
        import onnx

        from zmask_export.backends.rounding import rounded
    except ImportError as exc:
        raise BackendUnavailableError(
            "A network of 16 bits runs on a CPU in a rounded form, for which onnx and onnx-ir are missing.",
            fix="Install them (pip install onnx onnx-ir), or take a bundle of fp32.",
        ) from exc
    return rounded(onnx.load_model_from_string(model)).SerializeToString()


def _short(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300]

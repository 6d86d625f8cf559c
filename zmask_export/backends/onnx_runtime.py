"""ONNX Runtime: the runner that is everywhere."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from typing import Any, Literal

import onnxruntime as ort

from zmask_export.backends.gpu import gpu_count
from zmask_export.backends.runner import (
    Arrays,
    DeviceArray,
    Inputs,
    closed,
    cores,
    require_input,
)
from zmask_export.errors import BackendError, BackendUnavailableError, ShapeError, shortage
from zmask_export.spec import Precision

Device = Literal["auto", "cpu", "cuda"]

_ONLY_FATAL = 4
_CUDA = "CUDAExecutionProvider"
_CUDA_FIX = "Install its libraries (pip install 'zmask-export[cuda]'), or take the CPU."


class OnnxRuntimeRunner:
    """Runs an ONNX graph on a GPU where there is one, else on the CPU.

    Threads share one session, and take turns where they are more than the cores: every run at a time takes
    activations of its own, and more runs than cores are no faster.

    On a CPU, a graph of fp16 or bf16 is run in a form of float32 that rounds to it, see
    :mod:`zmask_export.backends.rounding`; of bf16 on a GPU too, as not every operator is there in it. int8
    is run as its Q/DQ nodes say, with float32 products.

    Args:
        model: the graph's bytes.
        threads: CPU threads; 0 lets ONNX Runtime choose, within the cores that this process may use.
        device: where to run; ``auto`` takes the GPU where there is one.
        precision: of the graph.

    Raises:
        BackendError: ONNX Runtime refuses the graph.
        BackendUnavailableError: ``cuda`` was asked for and cannot be had; or the graph must be rounded, and
            the package onnx is not installed.
    """

    def __init__(
        self,
        model: bytes,
        *,
        threads: int = 0,
        device: Device = "auto",
        precision: Precision = "fp32",
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ONLY_FATAL
        options.intra_op_num_threads = threads or _own_choice()
        # Its int8 kernels saturate on processors without VNNI; engines do not.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        providers = _providers(device)
        try:
            if precision == "bf16" or (precision == "fp16" and len(providers) == 1):
                model = _rounded(model)
            # It would print, and go on more slowly, where a GPU or a thread fails.
            session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except BackendUnavailableError:
            raise
        except Exception as exc:  # ONNX Runtime's errors share no base class but this
            raise shortage(exc) or BackendError(
                f"ONNX Runtime cannot load the graph ({_short(exc)}).",
                fix="Build it again with this version of zmask-export and ONNX Runtime.",
            ) from exc
        used = session.get_providers()[0]
        if device == "cuda" and used != _CUDA:
            raise BackendUnavailableError(
                "ONNX Runtime could not load its CUDA provider.", fix=_CUDA_FIX
            )
        self._session: ort.InferenceSession | None = session
        self._turns = threading.BoundedSemaphore(cores())
        self._kind = "cuda" if used == _CUDA else "cpu"
        self.name = f"onnxruntime-{used.removesuffix('ExecutionProvider').lower()}"
        self._shapes = {i.name: list(i.shape) for i in session.get_inputs()}
        # Inputs with a default, which may be left out.
        defaults = session.get_overridable_initializers()
        self._optional = {i.name: list(i.shape) for i in defaults}
        self._outputs = [o.name for o in session.get_outputs()]

    def run(self, inputs: Inputs) -> Arrays:
        session = self._session  # held here, so that a close in another thread cannot take it away
        if session is None:
            raise closed()
        wanted = self._shapes | {n: s for n, s in self._optional.items() if n in inputs}
        given = {name: require_input(inputs, name, shape) for name, shape in wanted.items()}
        bound = [value for value in given.values() if isinstance(value, DeviceArray)]
        for value in bound:
            if (value.kind, value.number) != (self._kind, 0):
                raise ShapeError(
                    f"The image lies in memory of {value.kind} {value.number}, where "
                    f"{self.name} cannot read it.",
                    fix="Copy it to main memory, or load the bundle with a backend for that GPU.",
                )
        try:
            with self._turns:
                values = (
                    self._run_bound(session, given) if bound else session.run(self._outputs, given)
                )
        except Exception as exc:  # ONNX Runtime's errors share no base class but this
            raise shortage(exc) or BackendError(
                f"ONNX Runtime failed ({_short(exc)}).", fix="Give a smaller batch or more memory."
            ) from exc
        return dict(zip(self._outputs, values, strict=True))

    def _run_bound(self, session: ort.InferenceSession, inputs: Inputs) -> Any:
        """Outputs of a run whose inputs are read where they lie."""
        binding = session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, DeviceArray):
                binding.bind_input(
                    name, value.kind, value.number, "float32", value.shape, value.pointer
                )
            else:
                binding.bind_cpu_input(name, value)
        for name in self._outputs:
            binding.bind_output(name)  # in main memory
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    def close(self) -> None:
        self._session = None


def _own_choice() -> int:
    """0, which lets ONNX Runtime choose, unless this process may not use every core.

    It counts the machine's cores and binds a thread to each, allowed or not.
    """
    allowed = cores()
    return 0 if allowed == os.cpu_count() else allowed


def _providers(device: Device) -> list[Any]:
    """Execution providers in order.

    Raises:
        BackendUnavailableError: ``cuda`` where it cannot be.
    """
    built_in = _CUDA in ort.get_available_providers()
    # Asking for CUDA where no GPU is prints loader errors: look before asking.
    cuda = device != "cpu" and built_in and gpu_count() > 0
    if device == "cuda" and not cuda:
        what = "This machine shows no NVIDIA GPU." if built_in else "This ONNX Runtime has no CUDA."
        raise BackendUnavailableError(what, fix="Load the bundle with backend onnxruntime-cpu.")
    if not cuda:
        return ["CPUExecutionProvider"]
    # Without torch nobody else has loaded the libraries that pip packages bring; it prints what it lacks.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(AttributeError):
        ort.preload_dlls()
    # The parity contract is for float32: ONNX Runtime would take TF32 on a GPU.
    return [(_CUDA, {"use_tf32": 0}), "CPUExecutionProvider"]


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

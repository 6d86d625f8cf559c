"""Graphs in ONNX Runtime on one device, with inputs and outputs that stay on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import onnxruntime as ort
from numpy.typing import NDArray

from zmask_export.backends.gpu import gpu_count
from zmask_export.errors import BackendError

Device = Literal["cpu", "cuda"]

_ONLY_FATAL = 4


def devices() -> tuple[list[Device], str | None]:
    """Devices that ONNX Runtime has here, and why CUDA is not among them."""
    if gpu_count() == 0:
        return ["cpu"], "The driver shows no GPU."
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return ["cpu"], "This ONNX Runtime has no CUDA provider."
    return ["cpu", "cuda"], None


def session_options(threads: int) -> ort.SessionOptions:
    """Silent, with as many threads as every other runner, which rest when a run ends."""
    options = ort.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    options.intra_op_num_threads = threads
    # They would wait for the next run at full speed, on the cores of whose turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # int8 as bundles of it are run: Q/DQ nodes as they stand.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def open_session(
    model: bytes | str,
    threads: int,
    device: Device = "cpu",
    options: ort.SessionOptions | None = None,
) -> ort.InferenceSession:
    """A session on one device.

    Args:
        model: the graph, or the path of its file.
        threads: CPU threads.
        device: where it runs.
        options: others than those of :func:`session_options`.

    Raises:
        BackendError: ONNX Runtime refuses the graph.
    """
    # The networks compute in float32, on every runner.
    cuda: list[Any] = [("CUDAExecutionProvider", {"use_tf32": 0})] if device == "cuda" else []
    try:
        return ort.InferenceSession(
            model, options or session_options(threads), providers=[*cuda, "CPUExecutionProvider"]
        )
    except Exception as exc:  # ONNX Runtime's errors share no base class but this
        raise BackendError(
            f"ONNX Runtime cannot load the graph ({_short(exc)}).",
            fix="Build it again with this version of zmask-export and ONNX Runtime.",
        ) from exc


def bound(
    session: ort.InferenceSession, inputs: dict[str, NDArray[Any]], device: Device = "cpu"
) -> Callable[[], None]:
    """One run of a session, whose inputs lie on the device and whose outputs stay there.

    Args:
        session: what to run.
        inputs: by name; those that the graph does not have are left out.
        device: where they lie.

    Raises:
        BackendError: from the run, where it fails.
    """
    binding = session.io_binding()
    for value in session.get_inputs():
        held = ort.OrtValue.ortvalue_from_numpy(inputs[value.name], device, 0)
        binding.bind_ortvalue_input(value.name, held)
    for value in session.get_outputs():
        binding.bind_output(value.name, device)

    def run() -> None:
        try:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as exc:  # ONNX Runtime's errors share no base class but this
            raise BackendError(
                f"ONNX Runtime failed ({_short(exc)}).", fix="Give a smaller batch or more memory."
            ) from exc

    return run


def _short(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300]

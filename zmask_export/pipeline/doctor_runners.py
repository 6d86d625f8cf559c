"""What of ONNX Runtime and the TensorRT flavours really loads here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from zmask_export.backends import tensorrt
from zmask_export.backends.gpu import gpus
from zmask_export.backends.tensorrt import Flavour
from zmask_export.profiling.machine import installed

CPU, CUDA = "ONNX Runtime on the CPU", "ONNX Runtime on CUDA"
_PROVIDERS = {CPU: "CPUExecutionProvider", CUDA: "CUDAExecutionProvider"}
_SECONDS = 60

# An ONNX file of one Identity, so that no package is needed to make it.
_IDENTITY = (
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)
_OPEN = """
import sys
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
model = bytes.fromhex(sys.argv[1])
session = onnxruntime.InferenceSession(model, options, providers=[sys.argv[2]])
sys.exit(0 if session.get_providers()[0] == sys.argv[2] else 1)
"""


class Found(NamedTuple):
    """A thing that is there or not; see :class:`zmask_export.pipeline.doctor.Finding`."""

    what: str
    ok: bool
    says: str
    fix: str | None = None


def providers() -> Iterator[Found]:
    """ONNX Runtime's providers: present, and able to open a session."""
    package = next((name for name in ("onnxruntime-gpu", "onnxruntime") if installed(name)), None)
    version = "" if package is None else f"{package} {installed(package)}"
    for what, provider in _PROVIDERS.items():
        if package is None:
            yield Found(what, False, "not installed", "pip install zmask-export.")
        elif what == CUDA and not gpus():
            yield Found(
                what, False, "the driver shows no GPU", "Run on a machine with an NVIDIA GPU."
            )
        elif _opens(provider):
            yield Found(what, True, version)
        elif what == CUDA:
            fix = "Install its CUDA libraries: pip install 'zmask-export[cuda]'."
            yield Found(what, False, f"{version} cannot load its CUDA provider", fix)
        else:
            fix = f"Install it again: pip install --force-reinstall {package}."
            yield Found(what, False, f"{version} opens no session", fix)


def _opens(provider: str) -> bool:
    """Whether a session opens on a provider, tried in a process of its own: loaders print and crash."""
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _OPEN, _IDENTITY, provider],
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def compilers() -> Iterator[Found]:
    """The compilers of both flavours."""
    flavours: tuple[tuple[Flavour, str], ...] = (
        ("tensorrt-rtx", "pip install 'zmask-export[rtx]' (Linux x86-64)."),
        ("tensorrt", "pip install 'zmask-export[tensorrt]', on a machine with an NVIDIA GPU."),
    )
    for flavour, fix in flavours:
        reason = tensorrt.available(flavour)
        what = f"{flavour} compiler"
        if reason is not None:
            yield Found(what, False, reason.rstrip("."), fix)
            continue
        says = str(tensorrt.require(flavour).__version__)
        if flavour == "tensorrt-rtx":
            says += f", for compute capability {', '.join(tensorrt.supported_capabilities())}"
        yield Found(what, True, says)


def rtx_engines() -> Found:
    """Whether a tensorrt-rtx engine can run: the package, and a GPU of a capability that it knows."""
    what = "tensorrt-rtx engines"
    reason = tensorrt.available("tensorrt-rtx")
    if reason is not None:
        return Found(what, False, reason.rstrip("."), "pip install 'zmask-export[rtx]'.")
    known = tensorrt.supported_capabilities()
    here = [gpu for gpu in gpus() if gpu.capability in known]
    if here:
        return Found(what, True, f"on {', '.join(gpu.name for gpu in here)}")
    says = "no GPU here is of a compute capability that it runs on"
    return Found(what, False, says, f"Run on a GPU of compute capability {', '.join(known)}.")

"""TensorRT and TensorRT-RTX: one code path, two flavours.

``tensorrt-rtx`` compiles ahead of time on any machine, for chosen compute capabilities. ``tensorrt``
needs a GPU to build on. Networks are strongly typed: precisions live in the graph.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from zmask_export.backends.onnx_runtime import gpu_count
from zmask_export.errors import BackendUnavailableError, CompileError, UsageError

Flavour = Literal["tensorrt", "tensorrt-rtx"]

_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_INSTALL: dict[Flavour, str] = {
    "tensorrt": "pip install 'zmask-export[tensorrt]'",
    "tensorrt-rtx": "pip install tensorrt-rtx-cu13 (Linux x86-64)",
}
_MEMORY_LINE = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")


@dataclass(frozen=True)
class BatchRange:
    """Batches an engine takes: smallest, the one it is tuned for, largest."""

    smallest: int = 1
    tuned: int = 1
    largest: int = 4


@dataclass(frozen=True)
class CompiledEngine:
    """A compiled engine and what the compiler said of it.

    Attributes:
        flavour: which compiler.
        version: its version.
        data: the serialized engine.
        capabilities: compute capabilities it runs on, such as ("8.6", "8.9"); empty for the GPU it
            was built on.
        activation_bytes: activation memory; None where the compiler does not say.
        weight_bytes: memory of the weights; None where it does not say.
        tf32: whether TF32 arithmetic is allowed (the compiler's default).
    """

    flavour: Flavour
    version: str
    data: bytes
    capabilities: tuple[str, ...]
    activation_bytes: int | None
    weight_bytes: int | None
    tf32: bool


def available(flavour: Flavour) -> str | None:
    """None where engines of this flavour can be built here, else the reason in one sentence."""
    try:
        importlib.import_module(_MODULES[flavour])
    except (ImportError, OSError, RuntimeError) as exc:
        return f"The package {_MODULES[flavour]} cannot be imported ({_short(exc)})."
    if flavour == "tensorrt" and gpu_count() == 0:
        return "TensorRT builds on an NVIDIA GPU, and this machine shows none."
    return None


def require(flavour: Flavour) -> ModuleType:
    """The flavour's Python module.

    Raises:
        BackendUnavailableError: it cannot build here, with the reason.
    """
    reason = available(flavour)
    if reason is not None:
        installed = "shows none" in reason
        fix = (
            "Build on a machine with a GPU, or choose --target tensorrt-rtx, which needs none."
            if installed
            else f"Install it ({_INSTALL[flavour]}), or choose another --target."
        )
        raise BackendUnavailableError(reason, fix=fix)
    return importlib.import_module(_MODULES[flavour])


def supported_capabilities() -> list[str]:
    """Compute capabilities that tensorrt-rtx compiles for, such as "8.9".

    Raises:
        BackendUnavailableError: tensorrt-rtx is not here.
    """
    return sorted(_capabilities(require("tensorrt-rtx")), key=lambda text: float(text))


def _capabilities(trt: ModuleType) -> dict[str, Any]:
    found = {}
    for name in dir(trt.ComputeCapability):
        match = re.fullmatch(r"SM(\d+)(\d)", name)
        if match:
            found[f"{match[1]}.{match[2]}"] = getattr(trt.ComputeCapability, name)
    return found


def compile_engine(
    onnx_model: bytes,
    flavour: Flavour,
    *,
    batch: BatchRange | None,
    capabilities: tuple[str, ...] = (),
) -> CompiledEngine:
    """Compile a fused graph.

    Args:
        onnx_model: the graph.
        flavour: which compiler.
        batch: range of a dynamic batch; None for a graph with a fixed one.
        capabilities: for tensorrt-rtx, what to compile for; empty takes the compiler's default.

    Raises:
        BackendUnavailableError: the flavour cannot build here.
        UsageError: an unknown compute capability.
        CompileError: the parser or the compiler refuses the graph; names the node.
    """
    trt = require(flavour)
    log = _log(trt)
    builder = trt.Builder(log)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx_model):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise CompileError(
            f"The {flavour} parser refuses the graph: {_short(errors)}.",
            fix="Choose --target onnx, or report the named node.",
        )
    config = builder.create_builder_config()
    tf32 = hasattr(trt.BuilderFlag, "TF32") and config.get_flag(trt.BuilderFlag.TF32)
    if batch is not None:
        config.add_optimization_profile(_profile(builder, network, batch))
    if capabilities:
        _set_capabilities(trt, config, flavour, capabilities)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise CompileError(
            f"The {flavour} compiler refuses the graph: {_short(log.problem())}.",
            fix="Choose --target onnx, or report the named node.",
        )
    return CompiledEngine(
        flavour=flavour,
        version=str(trt.__version__),
        data=bytes(engine),
        capabilities=capabilities,
        activation_bytes=log.memory("Activation"),
        weight_bytes=log.memory("Weights"),
        tf32=bool(tf32),
    )


def _profile(builder: Any, network: Any, batch: BatchRange) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if shape[0] == -1:
            rest = shape[1:]
            profile.set_shape(
                tensor.name,
                (batch.smallest, *rest),
                (batch.tuned, *rest),
                (batch.largest, *rest),
            )
    return profile


def _set_capabilities(
    trt: ModuleType, config: Any, flavour: Flavour, capabilities: tuple[str, ...]
) -> None:
    if flavour != "tensorrt-rtx":
        raise UsageError(
            "Compute capabilities can be chosen for tensorrt-rtx only.",
            fix="Leave out --compute-capability, or choose --target tensorrt-rtx.",
        )
    known = _capabilities(trt)
    config.num_compute_capabilities = len(capabilities)
    for index, text in enumerate(capabilities):
        if text not in known:
            raise UsageError(
                f"tensorrt-rtx does not compile for compute capability {text}.",
                fix=f"Choose among {', '.join(sorted(known, key=float))}.",
            )
        if not config.set_compute_capability(known[text], index):
            raise UsageError(
                f"tensorrt-rtx refuses compute capability {text} beside {capabilities[:index]}.",
                fix="Compile for one compute capability at a time.",
            )


def _log(trt: ModuleType) -> Any:
    """A logger that keeps what the compiler says and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.sizes: dict[str, int] = {}

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            match = _MEMORY_LINE.search(message)
            if match:
                self.sizes[match[1]] = int(match[2])

        def problem(self) -> str:
            return "; ".join(self.errors) or "it gives no reason"

        def memory(self, kind: str) -> int | None:
            return self.sizes.get(kind)

    return Log()


def _short(text: object) -> str:
    return " ".join(str(text).split())[:400].rstrip(".")

"""The compiler in a process of its own: a folder with a graph in, an engine or a problem out.

Started by :mod:`zmask_export.backends.tensorrt`; imports nothing but the compiler, so that every run
finds the same memory.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from zmask_export.errors import CompileError, UsageError

MODEL, REQUEST, ENGINE, ANSWER = "model.onnx", "request.json", "engine", "answer.json"
"""Files of the folder: the first two are given, the others written."""

Record = dict[str, Any]

_MEMORY_LINE = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")


def main(folder: str) -> None:
    """Compile ``folder``'s graph; write the engine and what the compiler said of it, or its problem."""
    at = Path(folder)
    request = json.loads((at / REQUEST).read_text("utf-8"))
    try:
        engine, answer = _compile(
            importlib.import_module(request["module"]),
            (at / MODEL).read_bytes(),
            request["flavour"],
            request["batch"],
            request["capabilities"],
        )
        (at / ENGINE).write_bytes(engine)
    except (CompileError, UsageError) as exc:
        answer = {"problem": exc.what, "fix": exc.fix, "usage": isinstance(exc, UsageError)}
    (at / ANSWER).write_text(json.dumps(answer), "utf-8")


def _compile(
    trt: ModuleType,
    onnx_model: bytes,
    flavour: str,
    batch: list[int] | None,
    capabilities: list[str],
) -> tuple[bytes, Record]:
    log = _log(trt)
    builder = trt.Builder(log)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx_model):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise CompileError(
            f"The {flavour} parser refuses the graph: {short(errors)}.",
            fix="Choose --target onnx, or report the named node.",
        )
    config = builder.create_builder_config()
    tf32 = hasattr(trt.BuilderFlag, "TF32") and config.get_flag(trt.BuilderFlag.TF32)
    if batch is not None:
        config.add_optimization_profile(_profile(builder, network, batch))
    if capabilities:
        _set_capabilities(trt, config, capabilities)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise CompileError(
            f"The {flavour} compiler refuses the graph: {short(log.problem())}.",
            fix="Choose --target onnx, or report the named node.",
        )
    return bytes(engine), {
        "activation_bytes": log.memory("Activation"),
        "weight_bytes": log.memory("Weights"),
        "tf32": bool(tf32),
    }


def _profile(builder: Any, network: Any, batch: list[int]) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if shape[0] == -1:
            profile.set_shape(tensor.name, *((n, *shape[1:]) for n in batch))
    return profile


def _set_capabilities(trt: ModuleType, config: Any, capabilities: list[str]) -> None:
    known = capabilities_of(trt)
    config.num_compute_capabilities = len(capabilities)
    for index, text in enumerate(capabilities):
        if not config.set_compute_capability(known[text], index):
            raise UsageError(
                f"tensorrt-rtx refuses compute capability {text} beside {capabilities[:index]}.",
                fix="Compile for one compute capability at a time.",
            )


def capabilities_of(trt: ModuleType) -> dict[str, Any]:
    """Compute capabilities that a flavour compiles for: text such as "8.9" to its constant."""
    found = {}
    for name in dir(trt.ComputeCapability):
        match = re.fullmatch(r"SM(\d+)(\d)", name)
        if match:
            found[f"{match[1]}.{match[2]}"] = getattr(trt.ComputeCapability, name)
    return found


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


def short(text: object) -> str:
    """A message on one line, cut to 400 characters."""
    return " ".join(str(text).split())[:400].rstrip(".")

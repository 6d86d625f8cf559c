"""The compiler in a process of its own: a folder with a graph in, an engine or a problem out.

Started by :mod:`zmask_export.backends.tensorrt`; imports nothing but the compiler, so that every run
finds the same memory.
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from zmask_export.errors import CompileError, UsageError
from zmask_export.spec import KEPT

MODEL, REQUEST, ENGINE, ANSWER = "model.onnx", "request.json", "engine", "answer.json"
"""Files of the folder: the first two are given, the others written."""

Record = dict[str, Any]

_TYPES = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "Int8": "int8"}
_LAYER = re.compile(
    r"Name: (?P<name>.*), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*)\], Outputs: "
)
_TENSOR = re.compile(r"Dimensions: \[([\d,-]*)\].*?Datatype: (\w+)")
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
            tf32=request["tf32"],
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
    *,
    tf32: bool,
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
    # On by default in a compiler that knows it.
    if hasattr(trt.BuilderFlag, "TF32"):
        (config.set_flag if tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    # Lets it list the layers of the engine with their types; the inspector would need a GPU.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
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
        "tf32": hasattr(trt.BuilderFlag, "TF32") and config.get_flag(trt.BuilderFlag.TF32),
        "convolutions": _convolutions(trt, network),
        "compiled": compiled_convolutions(log.layers),
        "listed": bool(log.layers),
        "kept": sum(
            layer.name.endswith(KEPT) for layer in _layers(network) if _convolves(trt, layer)
        ),
    }


def _convolutions(trt: ModuleType, network: Any) -> dict[str, int]:
    """Precision to how many convolutions compute in it, those inside branches and loops counted."""
    names = {trt.float32: "fp32", trt.float16: "fp16", trt.bfloat16: "bf16"}
    # An int8 product is one between two that dequantise: its input and its weights.
    dequantised = {
        layer.get_output(0).name
        for layer in _layers(network)
        if layer.type == trt.LayerType.DEQUANTIZE
    }
    counts: Counter[str] = Counter()
    for layer in _layers(network):
        if _convolves(trt, layer):
            read = [layer.get_input(index) for index in range(min(layer.num_inputs, 2))]
            short = [tensor is not None and tensor.name in dequantised for tensor in read]
            kind = names.get(read[0].dtype, str(read[0].dtype))
            counts["int8" if all(short) and len(short) > 1 else kind] += 1
    return dict(counts)


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(index) for index in range(network.num_layers)]


def _convolves(trt: ModuleType, layer: Any) -> bool:
    return layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION)


def compiled_convolutions(listing: str) -> dict[str, int]:
    """Precision to how many convolutions of a finished engine compute in it.

    Where input and weights differ, the precision is both, such as ``fp16*fp32``. Convolutions of one pixel,
    which the compiler turns into other products, are not among them.

    Args:
        listing: the engine's layers, one a line, as the compiler lists them in detail.
    """
    counts: Counter[str] = Counter()
    for match in map(_LAYER.search, listing.splitlines()):
        if match is None:
            continue
        fused = match["type"] == "runtime_fusion" and re.search(r"__myl_\w*Corr", match["name"])
        if match["type"] != "correlation" and not fused:
            continue
        # The first input is the map; the weights are the largest constant, among scales and biases.
        read = [_TENSOR.findall(match[part]) for part in ("inputs", "constants")]
        kinds = {tensors[0][1] for tensors in read[:1] if tensors}
        kinds |= {kind for _, kind in sorted(read[1], key=lambda tensor: _volume(tensor[0]))[-1:]}
        counts["*".join(sorted(_TYPES.get(kind, kind) for kind in kinds))] += 1
    return dict(counts)


def _volume(dimensions: str) -> int:
    return math.prod(int(side) for side in dimensions.split(",") if side)


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
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            if ", LayerType: " in message:
                self.layers += f"{message}\n"
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

"""Engines, compiled as a build would: what the compilers say that they need, and their speed on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from overhead.cases import Case, Cases
from overhead.graphs import Graphs
from overhead.record import EngineMemory
from zmask_export.backends import tensorrt
from zmask_export.backends.gpu import gpu_count
from zmask_export.backends.tensorrt import CompiledEngine, Flavour
from zmask_export.errors import BackendError
from zmask_export.fuse.batch import fix_batch
from zmask_export.fuse.emit import FuseOptions
from zmask_export.pipeline.engines import compile_smallest, engine_graphs
from zmask_export.pipeline.progress import Silent
from zmask_export.profiling.frames import FRAMES, feed
from zmask_export.spec import Policy

POLICIES = (Policy.DETECT, Policy.GATED)

Engines = dict[str, CompiledEngine]
"""``bare`` and the policies to their engines."""

_TORCH = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32", "BOOL": "bool"}
"""TensorRT's names of element types to torch's."""


def compile_engines(
    graphs: Graphs, flavour: Flavour, batch: int, policies: tuple[Policy, ...] = POLICIES
) -> Engines:
    """The bare engine and the protected ones, of the forms that need the least activation memory.

    Args:
        graphs: of the network.
        flavour: which compiler.
        batch: fixed batch of the engines.
        policies: to compile besides.

    Raises:
        BackendUnavailableError: the compiler cannot build here.
        CompileError: it refuses a graph.
        ParityError: a form for engines has other heatmaps or scores than the graph.
    """
    forms = {"bare": [graphs.bare]}
    frame = (graphs.images(1)[0].transpose(1, 2, 0) * 255).round().astype("uint8")
    for policy in policies:
        forms[policy.value] = engine_graphs(
            graphs.tapped,
            graphs.calibration,
            FuseOptions(policy),
            graphs.protected[policy],
            frame,
        )
    return {
        name: compile_smallest(
            [fix_batch(model, batch) for model in models],
            [flavour],
            batch=batch,
            largest=batch,
            capabilities=(),
            reporter=Silent(),
        )[0][0]
        for name, models in forms.items()
    }


def memory_of(engines: Engines, batch: int) -> list[EngineMemory]:
    """Bytes and ratios to the bare engine; nothing where the compiler gives no figures."""
    bare = engines["bare"]
    found = []
    for name, engine in engines.items():
        if engine.activation_bytes is None or engine.weight_bytes is None:
            continue
        found.append(
            EngineMemory(
                flavour=engine.flavour,
                case=name,
                batch=batch,
                activation_bytes=engine.activation_bytes,
                weight_bytes=engine.weight_bytes,
                activations_over_bare=_over(name, engine.activation_bytes, bare.activation_bytes),
                weights_over_bare=_over(name, engine.weight_bytes, bare.weight_bytes),
            )
        )
    return found


def _over(name: str, value: int, bare: int | None) -> float | None:
    return None if name == "bare" or not bare else value / bare


def why_not(flavour: Flavour) -> str | None:
    """Why engines of a flavour cannot run here; None where they may."""
    if gpu_count() == 0:
        return "The driver shows no GPU."
    if not torch.cuda.is_available():
        return "PyTorch, which holds the engine's inputs and outputs, finds no GPU."
    return tensorrt.available(flavour)


def engine_cases(graphs: Graphs, engines: Engines, batch: int) -> Cases:
    """Every engine, with either frame where it is protected.

    Raises:
        BackendError: the runtime refuses an engine: it is for other GPUs.
    """
    images = graphs.images(batch)
    cases: Cases = {}
    for name, engine in engines.items():
        for frame in (None,) if name == "bare" else FRAMES:
            inputs = {key: torch.from_numpy(v).cuda() for key, v in feed(images, frame).items()}
            cases[Case(f"{engine.flavour}-cuda", name, frame)] = loaded(engine, inputs)
    return cases


def loaded(engine: CompiledEngine, inputs: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One run of an engine with a fixed batch, from inputs on the GPU to outputs there.

    Raises:
        BackendError: the runtime refuses the engine.
    """
    trt: Any = tensorrt.require(engine.flavour)
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    found = runtime.deserialize_cuda_engine(engine.data)
    context = None if found is None else found.create_execution_context()
    if context is None:
        raise BackendError(
            f"The {engine.flavour} runtime refuses the engine on {torch.cuda.get_device_name()}.",
            fix="Run on a GPU that the engine was compiled for.",
        )
    tensors = []
    for index in range(found.num_io_tensors):
        name = found.get_tensor_name(index)
        if name in inputs:
            tensor = inputs[name]
        else:
            dtype = getattr(torch, _TORCH[found.get_tensor_dtype(name).name])
            tensor = torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device="cuda")
        context.set_tensor_address(name, tensor.data_ptr())
        tensors.append(tensor)
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    held = (tensors, found, runtime, logger)  # the context does not keep them

    def run(_held: object = held) -> None:
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()

    torch.cuda.synchronize()
    return run

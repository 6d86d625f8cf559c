"""The engines of a build: the fused graph in a form for GPUs, held against the verified one, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from zmask_export.artifacts.calibration import Calibration
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.tensorrt import BatchRange, CompiledEngine, Flavour, compile_engine
from zmask_export.errors import ParityError
from zmask_export.fuse.batch import fix_batch
from zmask_export.fuse.costs import GPU, SMALL_GPU
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.pipeline.progress import Reporter
from zmask_export.spec import Precision

_RTOL = 1e-5
"""Of heatmaps and scores. The soft mask may differ by more: a steep fusion block magnifies rounding."""


def engine_graphs(
    bare: bytes,
    calibration: Calibration,
    options: FuseOptions,
    verified: bytes,
    frame: NDArray[np.uint8],
    batch: int = 1,
    precision: Precision = "fp32",
) -> list[bytes]:
    """The protected graph in the forms that a GPU may like, each with the results of the verified one.

    Args:
        bare: the exported network.
        calibration: a fitted calibration.
        options: policy and outputs.
        verified: the graph that was compared with the reference.
        frame: RGB (H, W, 3) to compare them on.
        batch: that the graph takes.
        precision: of the graph.

    Raises:
        ParityError: a form gives other heatmaps or scores, which is a fault of the lowering.
    """
    threshold = np.asarray([calibration.require_fitted()[1]], np.float32)
    image = np.ascontiguousarray(frame.transpose(2, 0, 1), np.float32)[None] / np.float32(255)
    inputs = {"image": np.repeat(image, batch, axis=0), "threshold": threshold}
    expected = OnnxRuntimeRunner(verified, precision=precision).run(inputs)
    graphs: list[bytes] = []
    for machine in (GPU, SMALL_GPU):
        settings = replace(options, machine=machine)
        model = fuse(
            ir.serde.deserialize_model(onnx.load_model_from_string(bare)), calibration, settings
        ).to_bytes()
        if model in graphs:
            continue
        if model != verified:
            got = OnnxRuntimeRunner(model, precision=precision).run(inputs)
            for name in ("heatmap_shallow", "heatmap_deep", "score"):
                _require_close(name, got[name], expected[name])
        graphs.append(model)
    return graphs


def compile_smallest(
    graphs: Sequence[bytes],
    flavours: Sequence[Flavour],
    *,
    batch: int | None,
    largest: int,
    capabilities: tuple[str, ...],
    reporter: Reporter,
    precision: Precision = "fp32",
) -> tuple[list[CompiledEngine], BatchRange | None]:
    """Compile every form for every flavour; of each flavour keep the engine that needs the least memory.

    Which one that is only the compiler knows: it lays out the whole network's activations.

    Args:
        graphs: forms of one graph.
        flavours: which compilers.
        batch: fixed batch of the graphs, or None.
        largest: largest batch of a dynamic graph.
        capabilities: compute capabilities of a tensorrt-rtx engine.
        reporter: told of every engine.
        precision: of the graphs.

    Returns:
        An engine of each flavour, and the batches they take where those are a range.
    """
    profile = BatchRange(largest=largest) if batch is None and largest > 1 else None
    # With a batch of one declared, not left to a profile, two builds give the same bytes.
    fixed = batch is not None or profile is not None
    sources = [graph if fixed else fix_batch(graph, 1) for graph in graphs]
    engines = []
    with reporter.bar("compiling", len(flavours) * len(sources)) as advance:
        for index, flavour in enumerate(flavours):
            chosen = capabilities if flavour == "tensorrt-rtx" else ()
            forms = []
            for number, source in enumerate(sources, 1):
                forms.append(
                    compile_engine(
                        source, flavour, batch=profile, capabilities=chosen, precision=precision
                    )
                )
                advance(index * len(sources) + number, flavour)
            engines.append(min(forms, key=lambda engine: engine.activation_bytes or 0))
    return engines, profile


def _require_close(name: str, got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    error = float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-30))
    if not error <= _RTOL:
        raise ParityError(
            f"The engine's form of {name} differs from the verified one by {error:.1e}.",
            fix="Choose --target onnx, and report the command that you ran.",
        )

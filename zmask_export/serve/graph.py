"""The protected graph as an inference server loads it: with a threshold that need not be given.

Two forms, because Triton's ONNX Runtime backend takes no optional input where it batches:

- :func:`with_default`: ``threshold`` (1,) has the calibrated value as its default, an initializer of the
  input's name. A request that leaves it out gets the calibrated threshold.
- :func:`per_image`: ``threshold`` (N, 1) holds one value for each image, so that requests of different
  thresholds share a batch; a negative one stands for the calibrated threshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import TopologicalSortPass

from zmask_export.errors import BundleError
from zmask_export.fuse.builder import GraphBuilder

THRESHOLD = "threshold"
PART = "serve"


def with_default(model: bytes, threshold: float) -> bytes:
    """The graph with a default for its threshold.

    Args:
        model: a bundle's ONNX file.
        threshold: lambda0, calibrated.

    Raises:
        BundleError: the file is no graph of this program.
    """

    def change(graph: ir.Graph, given: ir.Value) -> None:
        given.const_value = ir.tensor(np.array([threshold], np.float32), name=THRESHOLD)
        graph.register_initializer(given)

    return _changed(model, change)


def per_image(model: bytes, threshold: float) -> bytes:
    """The graph with a threshold (N, 1), one for each image, negative for the calibrated one.

    Args: see :func:`with_default`; the graph's batch must be dynamic.

    Raises:
        BundleError: the file is no graph of this program.
    """

    def change(graph: ir.Graph, given: ir.Value) -> None:
        image = graph.inputs[0]
        uses = list(given.uses())
        build = GraphBuilder(graph)
        negative = build.op(PART, "Less", [given, build.floats(PART, 0.0)])
        chosen = build.op(PART, "Where", [negative, build.floats(PART, threshold), given])
        flat = build.op(PART, "Reshape", [chosen, build.ints(PART, [-1])])
        for node, index in uses:
            node.replace_input_with(index, flat)
        given.shape = ir.Shape([image.shape[0] if image.shape is not None else None, 1])

    return _changed(model, change)


def _changed(model: bytes, change: Callable[[ir.Graph, ir.Value], None]) -> bytes:
    try:
        loaded = ir.serde.deserialize_model(onnx.load_model_from_string(model))
        given = next(value for value in loaded.graph.inputs if value.name == THRESHOLD)
        change(loaded.graph, given)
        TopologicalSortPass()(loaded)
        proto = ir.serde.serialize_model(loaded)
        onnx.checker.check_model(proto, full_check=True)
    except Exception as exc:  # protobuf, onnx-ir and onnx share no base class but this
        raise BundleError(
            f"The bundle's graph cannot be changed ({' '.join(str(exc).split())[:200]}).",
            fix="Build the bundle again with this version of zmask-export.",
        ) from exc
    return bytes(proto.SerializeToString(deterministic=True))

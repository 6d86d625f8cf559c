"""What a bundle's graph is made of, part by part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import onnx

from zmask_export.errors import BundleError
from zmask_export.profiling.parts import part_of
from zmask_export.profiling.stock import Graph, Layer, Part

OTHER = "other"
"""What no node's name says."""


def graph_of(model: bytes) -> Graph:
    """Take stock of a graph.

    Args:
        model: the ONNX file.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        proto = onnx.load_model_from_string(model)
    except Exception as exc:  # protobuf's errors share no base class but this
        raise BundleError(
            "The bundle's graph is no ONNX file.", fix="Build the bundle again."
        ) from exc
    layers = tuple(_walk(proto.graph, 0))
    weights: dict[str, int] = defaultdict(int)
    for constant in proto.graph.initializer:
        weights[_part(constant.name)] += constant.ByteSize()
    operators: dict[str, Counter[str]] = defaultdict(Counter)
    for layer in layers:
        operators[layer.part][layer.operator] += 1
    parts = tuple(
        Part(
            part=part,
            nodes=counts.total(),
            operators=dict(counts.most_common()),
            weight_bytes=weights.get(part, 0),
        )
        for part, counts in operators.items()
    )
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    return Graph(opset=opset, parts=parts, layers=layers)


def _walk(graph: onnx.GraphProto, depth: int) -> Iterator[Layer]:
    for node in graph.node:
        yield Layer(name=node.name, part=_part(node.name), operator=node.op_type, depth=depth)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _walk(attribute.g, depth + 1)


def _part(name: str) -> str:
    return (part_of(name) or OTHER).split("/")[0]

"""Values of 16 bits where a runner computes in float32: rounded to them at every operator.

ONNX Runtime's CPU has no bfloat16 convolutions. For float16 it has none on x86 either, and computes whole
chains of operators in float32 in their place, which rounds less than an engine does. In the form made here
every operator computes in float32 on rounded values, and its result is rounded: what an engine does that
sums a product in float32 and stores it in 16 bits. Engines that fuse operators round less often.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx_ir as ir

SHORT = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""Types that are rounded to."""

_EXACT = frozenset(
    {
        *("Relu", "MaxPool", "GlobalMaxPool", "Max", "Min", "Concat", "Split", "Slice", "Pad"),
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Identity"),
        *("Abs", "Gather", "ReduceMax", "Where", "If", "Loop"),
    }
)
"""Operators whose results are values that they read, which are rounded already."""

_FLOAT32_OPSET = 20
_FULL = ir.TensorType(ir.DataType.FLOAT)


def rounded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float32, rounded to 16 bits where it stands in 16 bits.

    Args:
        proto: a graph whose inputs and outputs are not of 16 bits; every value of it that is has its type
            written down.
    """
    model = ir.serde.deserialize_model(proto)
    # bfloat16 asks for a newer operator set than float32, and than older runtimes have.
    model.graph.opset_imports[""] = min(model.graph.opset_imports[""], _FLOAT32_OPSET)
    for weight in model.graph.initializers.values():
        if weight.dtype in SHORT and weight.const_value is not None:
            array = weight.const_value.numpy().astype(np.float32)
            weight.const_value, weight.type = ir.tensor(array, name=weight.name), _FULL
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            for value in node.outputs:
                if value.dtype in SHORT:
                    _round(graph, node, value, value.dtype)
    return ir.serde.serialize_model(model)


def rounded_parts(
    proto: onnx.ModelProto, parts: Iterable[str], short: ir.DataType
) -> onnx.ModelProto:
    """A float32 graph with some of its parts rounded, as if they were of 16 bits: what they would cost.

    Args:
        proto: a fused graph.
        parts: what names of nodes and constants start with, such as ``cascade``.
        short: FLOAT16 or BFLOAT16.
    """
    starts = tuple(f"{part}/" for part in parts)
    # Types are not written down where a builder knows them.
    typed = onnx.shape_inference.infer_shapes(proto)
    model = ir.serde.deserialize_model(typed)
    for weight in model.graph.initializers.values():
        constant = weight.const_value
        if (
            (weight.name or "").startswith(starts)
            and weight.dtype == ir.DataType.FLOAT
            and constant is not None
        ):
            with np.errstate(over="ignore"):
                array = constant.numpy().astype(short.numpy()).astype(np.float32)
            weight.const_value = ir.tensor(array, name=weight.name)
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            if (node.name or "").startswith(starts):
                for value in node.outputs:
                    if value.dtype == ir.DataType.FLOAT:
                        _round(graph, node, value, short)
    return ir.serde.serialize_model(model)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value, short: ir.DataType) -> None:
    """Let all that reads ``value`` read it rounded."""
    if node.op_type in _EXACT:
        value.type = _FULL
        return
    back = ir.node("Cast", inputs=[value], attributes={"to": ir.DataType.FLOAT})
    back.name = f"{value.name}/rounded"
    full = back.outputs[0]
    full.name, full.type, full.shape = back.name, _FULL, value.shape
    if value.is_graph_output():
        value.name, full.name = full.name, value.name
    value.replace_all_uses_with(full, replace_graph_outputs=True)
    last = node
    if node.op_type != "Cast":
        value.type = _FULL
        down = ir.node("Cast", inputs=[value], attributes={"to": short})
        down.name = f"{value.name}/short"
        down.outputs[0].name = down.name
        graph.insert_after(node, down)
        last = down
    back.replace_input_with(0, last.outputs[0])
    graph.insert_after(last, back)

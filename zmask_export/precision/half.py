"""float16 and bfloat16 in a network's graph, with float32 at its border.

A pass of its own: the kept converters (onnxconverter-common, ``onnxruntime.transformers.float16``) know
float16 alone and decide by operator or name, not by what hangs on a value; nvidia-modelopt, which knows
both types, pins other versions of onnx and onnxruntime and needs CuPy.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from zmask_export.errors import CompileError
from zmask_export.precision.region import low_region

HALVES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
"""Precision to the type of its values."""

BFLOAT16_OPSET = 22
"""The first operator set whose convolutions and poolings may be bfloat16. Since the exporter's, nothing
else changed in the operators that a graph here is made of."""


def lower_types(model: ir.Model, precision: Literal["fp16", "bf16"]) -> None:
    """Give the low region of a network a type of 16 bits, in place.

    Inputs, outputs and taps keep their names and float32. A weight is stored in the type that it is read
    in; in both types only where it is read in both.

    Args:
        model: from ``export_bare``.
        precision: which type.

    Raises:
        CompileError: a weight is too large for the type.
    """
    graph, low = model.graph, HALVES[precision]
    if precision == "bf16":
        graph.opset_imports[""] = max(graph.opset_imports[""], BFLOAT16_OPSET)
    casts = _Casts(graph, low)
    region = low_region(graph)
    for node in list(graph):
        if node in region:
            inputs, outputs = _of_one_type(node, graph.opset_imports[""])
            for index in inputs:
                value = node.inputs[index]
                if value is not None and value.dtype == ir.DataType.FLOAT:
                    node.replace_input_with(index, casts.low(value, node))
            for index in outputs:
                node.outputs[index].type = ir.TensorType(low)
        elif node.op_type != "Shape":
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype == low:
                    node.replace_input_with(index, casts.full(value, node))
    for index, value in enumerate(graph.outputs):
        if value.dtype == low:
            graph.outputs[index] = casts.output(value)
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(value.name or "")


def _of_one_type(node: ir.Node, opset: int) -> tuple[list[int], list[int]]:
    """Inputs and outputs that have the type of the first output, as the operator's schema says."""
    schema = onnx.defs.get_schema(node.op_type, opset)

    def same(formal: list[onnx.defs.OpSchema.FormalParameter], count: int) -> list[int]:
        # Of the last one there may be several.
        kinds = [formal[min(index, len(formal) - 1)].type_str for index in range(count)]
        return [index for index, kind in enumerate(kinds) if kind == schema.outputs[0].type_str]

    return same(list(schema.inputs), len(node.inputs)), same(
        list(schema.outputs), len(node.outputs)
    )


class _Casts:
    """Values in the other type, each cast once."""

    def __init__(self, graph: ir.Graph, low: ir.DataType) -> None:
        self._graph = graph
        self._low = low
        self._made: dict[ir.Value, ir.Value] = {}

    def low(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """A float32 value in the low type, to be read by ``reader``."""
        if value not in self._made:
            constant = value.const_value if value.is_initializer() else None
            self._made[value] = (
                self._cast(value, self._low, reader)
                if constant is None
                else self._stored(value, constant)
            )
        return self._made[value]

    def full(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """A low value in float32, to be read by ``reader``."""
        if value not in self._made:
            self._made[value] = self._cast(value, ir.DataType.FLOAT, reader)
        return self._made[value]

    def output(self, value: ir.Value) -> ir.Value:
        """A low output of the graph in float32, under the name that it had."""
        full = self._made.get(value) or self._cast(value, ir.DataType.FLOAT, None)
        name, value.name = value.name, f"{value.name}/low"
        full.name = name
        return full

    def _cast(self, value: ir.Value, to: ir.DataType, reader: ir.Node | None) -> ir.Value:
        node = ir.node("Cast", inputs=[value], attributes={"to": to})
        node.name = f"network/Cast/{value.name}"
        cast = node.outputs[0]
        cast.name, cast.shape, cast.type = f"{node.name}:0", value.shape, ir.TensorType(to)
        if reader is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(reader, node)
        return cast

    def _stored(self, value: ir.Value, constant: ir.TensorProtocol) -> ir.Value:
        full = constant.numpy()
        with np.errstate(over="ignore"):
            array = full.astype(self._low.numpy())
        if np.isfinite(full).all() and not np.isfinite(array.astype(np.float32)).all():
            raise CompileError(
                f"{value.name} holds values of up to {np.abs(full).max():.3g}, too large for float16.",
                fix="Choose --precision bf16 or fp32.",
            )
        name = f"{value.name}/low"
        stored = ir.Value(
            name=name,
            shape=value.shape,
            type=ir.TensorType(self._low),
            const_value=ir.tensor(array, dtype=self._low, name=name),
        )
        self._graph.register_initializer(stored)
        return stored

"""A thin layer over onnx-ir: nodes with readable names, constants, subgraphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class GraphBuilder:
    """Appends nodes to a graph under a part name.

    Args:
        graph: where nodes go.
        root: where constants go; the graph itself where None. Constants of a subgraph live in the
            outermost graph, which every runtime accepts and which stores them once.
    """

    def __init__(self, graph: ir.Graph, root: GraphBuilder | None = None) -> None:
        self.graph = graph
        self._root = root or self
        self._names: Counter[str] = Counter() if root is None else root._names
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def op(
        self,
        part: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        dtype: ir.DataType | None = None,
        shape: Sequence[int | str] | None = None,
    ) -> ir.Value:
        """Append one node and return its (first) output.

        Args:
            part: which part of the engine it belongs to, such as ``cascade/res_block5``.
            op_type: ONNX operator.
            inputs: values, None for an omitted optional input.
            attributes: ONNX attributes.
            name: name of the output value, where others rely on it.
            dtype: element type of the output, where it must be declared.
            shape: shape of the output, where it must be declared.
        """
        node = ir.node(op_type, inputs=list(inputs), attributes=attributes)
        self.append(node, part)
        value = node.outputs[0]
        if name is not None:
            value.name = name
        if dtype is not None:
            value.type = ir.TensorType(dtype)
        if shape is not None:
            value.shape = ir.Shape(shape)
        return value

    def ops(
        self,
        part: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        attributes: Mapping[str, Any] | None = None,
    ) -> Sequence[ir.Value]:
        """Append one node of several outputs and return them all."""
        node = ir.node(op_type, inputs=list(inputs), attributes=attributes, num_outputs=outputs)
        self.append(node, part)
        return node.outputs

    def append(self, node: ir.Node, part: str) -> None:
        """Append a finished node, named after its part and operator."""
        node.name = self.unique(f"{part}/{node.op_type}")
        for index, value in enumerate(node.outputs):
            if value.name is None:
                value.name = f"{node.name}:{index}"
        self.graph.append(node)

    def unique(self, base: str) -> str:
        """``base``, numbered from its second use on."""
        self._names[base] += 1
        count = self._names[base]
        return base if count == 1 else f"{base}_{count}"

    def constant(self, part: str, array: NDArray[Any]) -> ir.Value:
        """An initializer; equal arrays are stored once."""
        return self._root._constant(part, np.asarray(array, order="C"))

    def _constant(self, part: str, array: NDArray[Any]) -> ir.Value:
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = self.unique(f"{part}/constant")
            value = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                const_value=ir.tensor(array, name=name),
            )
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def floats(self, part: str, values: Any) -> ir.Value:
        """A float32 constant."""
        return self.constant(part, np.asarray(values, np.float32))

    def ints(self, part: str, values: Any) -> ir.Value:
        """An int64 constant."""
        return self.constant(part, np.asarray(values, np.int64))

    def subgraph(self, name: str, inputs: Sequence[ir.Value] = ()) -> GraphBuilder:
        """A builder for the body of an If or a Loop; it sees this graph's values."""
        graph = ir.Graph(
            list(inputs), [], nodes=[], name=name, opset_imports=dict(self.graph.opset_imports)
        )
        return self.around(graph)

    def around(self, graph: ir.Graph) -> GraphBuilder:
        """A builder for a body that is there already."""
        return GraphBuilder(graph, self._root)

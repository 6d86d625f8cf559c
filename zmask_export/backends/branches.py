"""int8 weights as TensorRT takes them: as a constant beside their DequantizeLinear, in the same branch.

A graph stores the weights that both passes read once, in front of the gate. TensorRT refuses a constant of
int8 that enters a branch, and multiplies in float where a weight enters one dequantised. So what it is
given has a copy for every branch; equal constants it stores once.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir


def weights_beside(model: bytes) -> bytes:
    """The graph with a DequantizeLinear, and what it reads, of its own in every branch that reads one.

    Args:
        model: a fused graph with int8 weights.
    """
    loaded = ir.serde.deserialize_model(onnx.load_model_from_string(model))
    root = loaded.graph
    for number, branch in enumerate(root.subgraphs()):
        own: dict[ir.Value, ir.Value] = {}
        for node in list(branch):
            for index, value in enumerate(node.inputs):
                source = None if value is None else value.producer()
                if value is None or source is None or source.graph is branch:
                    continue
                if not _dequantises_weights(source):
                    continue
                if value not in own:
                    own[value] = _copied(root, branch, source, f"branch_{number}")
                node.replace_input_with(index, own[value])
    for node in list(root):
        if _dequantises_weights(node) and not node.outputs[0].uses():
            root.remove(node, safe=True)
    for value in list(root.initializers.values()):
        if not value.uses():
            root.initializers.pop(value.name or "")
    return ir.serde.serialize_model(loaded).SerializeToString(deterministic=True)


def _dequantises_weights(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear" and all(
        value is None or value.is_initializer() for value in node.inputs
    )


def _copied(root: ir.Graph, branch: ir.Graph, node: ir.Node, part: str) -> ir.Value:
    read: list[ir.Value | None] = []
    for value in node.inputs:
        if value is None or value.const_value is None:
            read.append(value)
            continue
        name = f"{part}/{value.name}"
        if name not in root.initializers:
            constant = ir.tensor(value.const_value.numpy(), name=name)
            root.register_initializer(
                ir.Value(name=name, shape=value.shape, type=value.type, const_value=constant)
            )
        read.append(root.initializers[name])
    copy = ir.node("DequantizeLinear", inputs=read, attributes=dict(node.attributes))
    copy.name = f"{part}/{node.name}"
    copy.outputs[0].name = f"{part}/{node.outputs[0].name}"
    copy.outputs[0].type, copy.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    branch.insert_before(branch[0], copy)
    return copy.outputs[0]

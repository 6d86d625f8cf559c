"""The bare network out of a protected graph: what one would run without the defense.

Requires: a graph from :mod:`zmask_export.fuse.emit`, under any policy. Ensures: the input ``image``, the
network's own outputs, and nothing that they do not need.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from zmask_export.errors import BundleError

_OF_DEFENSE = ("mask", "score", "flag", "soft_mask")
_OF_DEFENSE_BEGIN = ("heatmap_", "heatmap.", "tap.")
_GATE, _SECOND_PASS = "gate/", "second_pass/"


def bare_of(protected: bytes) -> bytes:
    """The ONNX file of the network alone.

    Under ``detect`` it is what the outputs hang on; under ``gated`` the branch that finishes the first
    pass takes the gate's place; under ``mask`` the second pass reads the image as it is.

    Args:
        protected: the file of a protected graph.

    Raises:
        BundleError: the graph is not one of this package.
    """
    model = ir.serde.deserialize_model(onnx.load_model_from_string(protected))
    graph = model.graph
    own = [value for value in graph.outputs if not _of_defense(value.name or "")]
    if not own or not any(value.name == "image" for value in graph.inputs):
        raise _foreign()
    for node in [n for n in graph if n.op_type == "If" and (n.name or "").startswith(_GATE)]:
        own = _ungated(graph, node, own)
    _uncover(graph)
    graph.outputs.clear()
    graph.outputs.extend(own)
    for node in reversed(list(graph)):
        if not any(value in own or any(value.uses()) for value in node.outputs):
            _drop(graph, node)
    model = RemoveUnusedNodesPass()(model).model
    for value in [v for v in graph.inputs if v.name != "image"]:
        if any(value.uses()):
            raise _foreign()
        graph.inputs.remove(value)
    return bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))


def _ungated(graph: ir.Graph, gate: ir.Node, outputs: list[ir.Value]) -> list[ir.Value]:
    """Put the else-branch in the gate's place; returns the outputs, the gate's replaced."""
    branch = gate.attributes["else_branch"].as_graph()
    ends = list(branch.outputs)
    branch.outputs.clear()
    nodes = list(branch)
    branch.remove(nodes)
    graph.insert_before(gate, nodes)
    results = list(outputs)
    for old, new in zip(gate.outputs, ends, strict=True):
        for reader, index in list(old.uses()):
            reader.replace_input_with(index, new)
        if old in outputs:
            name, old.name = old.name, f"{_GATE}{old.name}"
            new.name, new.type, new.shape = name, old.type, old.shape
            results[outputs.index(old)] = new
    return results


def _drop(graph: ir.Graph, node: ir.Node) -> None:
    """Remove a node and what its bodies read, which would count as used otherwise."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            body.outputs.clear()
            for inner in reversed(list(body)):
                _drop(body, inner)
    graph.remove(node, safe=True)


def _uncover(graph: ir.Graph) -> None:
    """Hand a second pass outside a gate the image in the place of the covered one."""
    image = next(value for value in graph.inputs if value.name == "image")
    for node in list(graph):
        if not (node.name or "").startswith(_SECOND_PASS) or node.op_type != "Mul":
            continue
        mask = node.inputs[1]
        if node.inputs[0] is not image or mask is None or mask.name != "mask":
            continue
        covered = node.outputs[0]
        # The colour of covered pixels, where it is not black: image * mask + (1 - mask) * colour.
        for reader, _ in list(covered.uses()):
            if reader.op_type == "Add" and _is_colour(reader.inputs[1], mask):
                covered = reader.outputs[0]
        for reader, index in list(covered.uses()):
            reader.replace_input_with(index, image)


def _is_colour(value: ir.Value | None, mask: ir.Value) -> bool:
    product = None if value is None else value.producer()
    inverse = None if product is None or product.inputs[0] is None else product.inputs[0].producer()
    return inverse is not None and inverse.op_type == "Sub" and mask in inverse.inputs


def _of_defense(name: str) -> bool:
    return name in _OF_DEFENSE or name.startswith(_OF_DEFENSE_BEGIN)


def _foreign() -> BundleError:
    return BundleError(
        "The bundle's graph holds no network that can be told from its defense.",
        fix="Build the bundle again with this version of zmask-export.",
    )

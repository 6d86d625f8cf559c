"""The second pass: the network again, on the covered image.

``mask`` runs it always. ``gated`` puts it into the then-branch of an ``If``; the else-branch finishes
the first pass from the taps on, so a clean frame pays the network once. Both passes use the weights of
the outer graph by name: they are stored once. What follows a detector's first suppression stands behind the
``If`` and runs once for either branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from zmask_export.export.suppression import DOMAIN
from zmask_export.fuse.builder import GraphBuilder
from zmask_export.spec import Triple

PART = "second_pass"


def emit_cover(build: GraphBuilder, image: ir.Value, mask: ir.Value, colour: Triple) -> ir.Value:
    """x * M, with covered pixels set to ``colour``."""
    covered = build.op(PART, "Mul", [image, mask])
    if not any(colour):
        return covered
    inverse = build.op(PART, "Sub", [build.floats(PART, 1.0), mask])
    shaped = build.floats(PART, [[[[c]] for c in colour]])
    return build.op(PART, "Add", [covered, build.op(PART, "Mul", [inverse, shaped])])


def emit_second_pass(
    build: GraphBuilder,
    nodes: Sequence[ir.Node],
    image: ir.Value,
    covered: ir.Value,
    outputs: Sequence[ir.Value],
) -> list[ir.Value]:
    """Copy the network's nodes onto ``build``, reading ``covered`` in place of ``image``.

    Returns the copies of ``outputs``.
    """
    mapping: dict[ir.Value, ir.Value] = {image: covered}
    wanted = needed_for(outputs, nodes)
    for node in nodes:
        if node not in wanted:
            continue
        copy = ir.node(
            node.op_type,
            inputs=[None if v is None else mapping.get(v, v) for v in node.inputs],
            attributes=dict(node.attributes),
            num_outputs=len(node.outputs),
            domain=node.domain,
        )
        copy.name = _renamed(node.name)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = f"{PART}/{old.name}"
            new.type, new.shape = old.type, old.shape
            mapping[old] = new
        build.graph.append(copy)
    return [mapping[value] for value in outputs]


def emit_gated(
    build: GraphBuilder,
    nodes: Sequence[ir.Node],
    image: ir.Value,
    mask: ir.Value,
    flag: ir.Value,
    colour: Triple,
    outputs: Sequence[ir.Value],
    kept: Iterable[ir.Value],
) -> list[ir.Value]:
    """An ``If`` on any flag: then the second pass, else the rest of the first.

    Args:
        build: the outer graph.
        nodes: the network's nodes, which stand in the outer graph.
        image: (N, 3, H, W).
        mask: M (N, 1, H, W); unflagged images of the batch have a mask of ones.
        flag: bool (N,).
        colour: fill of covered pixels.
        outputs: the network's outputs in the first pass.
        kept: values that must stay in the outer graph (the taps).

    Returns:
        The network's outputs after the gate.
    """
    fixed = content_free(image, nodes)
    tail = after_suppression(nodes)
    crossing = _crossing(outputs, nodes, fixed | tail, tail)
    gated = [node for node in nodes if node not in fixed | tail]

    then = build.subgraph("second_pass")
    covered = emit_cover(then, image, mask, colour)
    then.graph.outputs.extend(emit_second_pass(then, gated, image, covered, crossing))

    otherwise = build.subgraph("rest_of_first_pass")
    first = needed_for(list(kept), gated)
    rest = [node for node in gated if node not in first]
    build.graph.remove(rest)
    for node in rest:
        otherwise.graph.append(node)
    for value in crossing:
        # A branch must own its outputs: one that the first pass already has is handed through.
        own = value.producer() in rest
        otherwise.graph.outputs.append(value if own else otherwise.op(PART, "Identity", [value]))

    for branch in (then, otherwise):
        _own_kernels(branch)

    cast = build.op("gate", "Cast", [flag], {"to": ir.DataType.INT32})
    most = build.op("gate", "ReduceMax", [cast], {"keepdims": 0})
    condition = build.op("gate", "Cast", [most], {"to": ir.DataType.BOOL})
    node = ir.node(
        "If",
        inputs=[condition],
        attributes={"then_branch": then.graph, "else_branch": otherwise.graph},
        num_outputs=len(crossing),
    )
    build.append(node, "gate")
    chosen = dict(zip(crossing, node.outputs, strict=True))
    for old, new in chosen.items():
        new.type, new.shape = old.type, old.shape
    for node in tail:
        for index, read in enumerate(node.inputs):
            if read in chosen:
                node.replace_input_with(index, chosen[read])
    return [chosen.get(value, value) for value in outputs]


def _own_kernels(branch: GraphBuilder) -> None:
    """Have the convolutions of a branch read their weights through a Reshape that changes nothing.

    ONNX Runtime lays out only those kernels for vectors that are constants of the convolution's own graph.
    Folding the Reshape makes them that when a session opens; the file still holds them once, and so does an
    engine.
    """
    nodes = list(branch.graph)
    branch.graph.remove(nodes)
    own: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        for index, value in enumerate(node.inputs if node.op_type == "Conv" else ()):
            if value is None or not value.is_initializer() or value.shape is None:
                continue
            if value not in own:
                same = branch.ints(PART, [0] * len(value.shape))
                own[value] = branch.op(PART, "Reshape", [value, same])
            node.replace_input_with(index, own[value])
        branch.graph.append(node)


def _crossing(
    outputs: Sequence[ir.Value],
    nodes: Sequence[ir.Node],
    outside: set[ir.Node],
    tail: set[ir.Node],
) -> list[ir.Value]:
    """What the gated part of the network hands on: outputs of its own, and what the tail reads."""
    gated = set(nodes) - outside
    read = (value for node in nodes if node in tail for value in node.inputs)
    wanted = (value for value in (*outputs, *read) if value is not None)
    return [value for value in dict.fromkeys(wanted) if value.producer() in gated]


def content_free(image: ir.Value, nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """Nodes whose results do not hang on the image's pixels, only on its shape."""
    found: set[ir.Node] = set()
    for node in nodes:
        if (node.op_type == "Shape" and node.inputs[0] is image) or (
            node.op_type != "Shape"
            and all(
                value is None or value.is_initializer() or value.producer() in found
                for value in node.inputs
            )
        ):
            found.add(node)
    return found


def after_suppression(nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """The suppressions of a detector, and everything that hangs on one.

    They stay behind the gate, where both branches meet: they run once in any case, and compilers that
    take no loop inside a branch are served.
    """
    found: set[ir.Node] = set()
    for node in nodes:
        if node.domain == DOMAIN or any(
            value is not None and value.producer() in found for value in node.inputs
        ):
            found.add(node)
    return found


def needed_for(values: Sequence[ir.Value], nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """The nodes of ``nodes`` that ``values`` depend on."""
    among = set(nodes)
    pending = [value.producer() for value in values]
    found: set[ir.Node] = set()
    while pending:
        node = pending.pop()
        if node is None or node in found or node not in among:
            continue
        found.add(node)
        pending.extend(value.producer() for value in node.inputs if value is not None)
    return found


def _renamed(name: str | None) -> str:
    return f"{PART}/{(name or 'node').split('/', 1)[-1]}"

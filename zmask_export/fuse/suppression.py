"""Greedy non-maximum suppression in plain operators.

Detectors are exported with one node ``zmask::GreedyKeep``; this pass, the last before a graph is
written, puts standard operators in its place. It runs after the gate has been composed, which copies nodes
but no loops.

Greedy suppression of boxes that stand in the order of their scores is the one fixed point of

    keep_i = valid_i and not any(keep_j, j before i, IoU(i, j) > threshold)

which repeated application reaches after at most the longest chain of suppressions (the first box is
right from the start, and every step settles the next link). Groups, such as classes, are independent; a
loop takes one at a time, so memory holds one matrix of overlaps an image, and of a large group one block of
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from zmask_export.errors import CompileError
from zmask_export.export.suppression import DOMAIN, GREEDY_KEEP
from zmask_export.fuse.builder import GraphBuilder

_PART = "suppression"
_BLOCK = 1024
"""Boxes of a group that meet each other at once: memory holds so many times all of the group."""


def lower_suppression(model: ir.Model) -> None:
    """Replace every ``zmask::GreedyKeep`` of a model, those inside branches too, in place.

    See ``models/detection/suppression.py`` for what the node does.

    Raises:
        CompileError: the shape of a node's boxes is not known, apart from N.
    """
    root = GraphBuilder(model.graph)
    for graph in (model.graph, *_branches(model.graph)):
        build = root if graph is model.graph else root.around(graph)
        for node in [n for n in graph if n.domain == DOMAIN and n.op_type == GREEDY_KEEP]:
            _replace(build, node)
    model.graph.opset_imports.pop(DOMAIN, None)
    for graph in _branches(model.graph):
        graph.opset_imports.pop(DOMAIN, None)


def _branches(graph: ir.Graph) -> list[ir.Graph]:
    found = []
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                found += [attribute.as_graph(), *_branches(attribute.as_graph())]
    return found


def _replace(build: GraphBuilder, node: ir.Node) -> None:
    boxes, valid, labels = node.inputs
    shape = None if boxes is None else boxes.shape
    if boxes is None or valid is None or labels is None or shape is None:
        raise _unknown(node)
    groups, count = shape[1], shape[2]
    if not isinstance(groups, int) or not isinstance(count, int):
        raise _unknown(node)
    found = _Group(boxes, valid, labels, count)
    keep = _each_group(build, found, groups, node.attributes["iou"].as_float())
    old = node.outputs[0]
    keep.type, keep.shape = ir.TensorType(ir.DataType.BOOL), old.shape
    old.replace_all_uses_with(keep, replace_graph_outputs=True)
    build.graph.remove(node, safe=True)


def _unknown(node: ir.Node) -> CompileError:
    return CompileError(
        f"The boxes of {node.name} have no known shape.", fix="Export with a fixed input size."
    )


@dataclass(frozen=True)
class _Group:
    """boxes (N, K, 4), valid (N, K) and labels (N, K), the surest first; K is ``count``."""

    boxes: ir.Value
    valid: ir.Value
    labels: ir.Value
    count: int

    def take(self, build: GraphBuilder, index: ir.Value, axis: int, count: int) -> _Group:
        """What stands at ``index`` of an axis of all three."""

        def picked(value: ir.Value) -> ir.Value:
            return build.op(_PART, "Gather", [value, index], {"axis": axis})

        return _Group(picked(self.boxes), picked(self.valid), picked(self.labels), count)


def _each_group(build: GraphBuilder, found: _Group, groups: int, threshold: float) -> ir.Value:
    """keep bool (N, G, K) of boxes (N, G, K, 4): one group of every image at a time."""
    if groups == 1:
        alone = found.take(build, build.ints(_PART, 0), 1, found.count)
        keep = _greedy(build, alone, threshold)
        return build.op(_PART, "Unsqueeze", [keep, build.ints(_PART, [1])])
    index, going = _counters(build, "group")
    body = build.subgraph("suppression_of_a_group", [index, going])
    keep = _greedy(body, found.take(body, index, 1, found.count), threshold)
    body.graph.outputs.extend([body.op(_PART, "Identity", [going]), keep])
    kept = _loop(build, body, groups, [])
    return build.op(_PART, "Transpose", [kept], {"perm": [1, 0, 2]})


def _greedy(build: GraphBuilder, found: _Group, threshold: float) -> ir.Value:
    """keep bool (N, K) of one group."""
    if found.count > _BLOCK:
        return _in_blocks(build, found, threshold)
    overlaps = _overlaps(build, found, found, threshold)
    earlier = build.floats(_PART, np.tri(found.count, k=-1))
    return _settle(build, build.op(_PART, "Mul", [overlaps, earlier]), found.valid, found.count)


def _in_blocks(build: GraphBuilder, found: _Group, threshold: float) -> ir.Value:
    """The same, block after block: a block's boxes first meet the survivors of those before it."""
    blocks = -(-found.count // _BLOCK)
    whole = _padded(build, found, blocks * _BLOCK - found.count)
    index, going = _counters(build, "block")
    survivors = _value(build, "survivors", ir.DataType.FLOAT, [None, whole.count])
    body = build.subgraph("suppression_of_a_block", [index, going, survivors])
    first = body.op(_PART, "Mul", [index, body.ints(_PART, _BLOCK)])
    rows = body.op(_PART, "Add", [first, body.ints(_PART, np.arange(_BLOCK))])
    block = whole.take(body, rows, 1, _BLOCK)
    free = _free(body, _overlaps(body, block, whole, threshold), survivors)
    allowed = body.op(_PART, "And", [free, block.valid])
    within = _overlaps(body, block, block, threshold)
    within = body.op(_PART, "Mul", [within, body.floats(_PART, np.tri(_BLOCK, k=-1))])
    keep = _settle(body, within, allowed, _BLOCK)
    kept = body.op(_PART, "Cast", [keep], {"to": ir.DataType.FLOAT})
    place = body.op(_PART, "Gather", [body.floats(_PART, np.eye(blocks)), index], {"axis": 0})
    place = body.op(_PART, "Reshape", [place, body.ints(_PART, [1, blocks, 1])])
    spread = body.op(
        _PART, "Mul", [place, body.op(_PART, "Unsqueeze", [kept, body.ints(_PART, [1])])]
    )
    spread = body.op(_PART, "Reshape", [spread, body.ints(_PART, [-1, whole.count])])
    after = body.op(_PART, "Add", [survivors, spread])
    body.graph.outputs.extend([body.op(_PART, "Identity", [going]), after])
    nobody = build.op(_PART, "Where", [whole.valid, *[build.floats(_PART, 0.0)] * 2])
    last = _loop(build, body, blocks, [nobody])
    every = build.op(_PART, "Greater", [last, build.floats(_PART, 0.5)])
    return build.op(
        _PART, "Gather", [every, build.ints(_PART, np.arange(found.count))], {"axis": 1}
    )


def _padded(build: GraphBuilder, found: _Group, short: int) -> _Group:
    """Filled up with boxes that do not count."""
    if not short:
        return found
    order = np.minimum(np.arange(found.count + short), found.count - 1)
    whole = found.take(build, build.ints(_PART, order), 1, found.count + short)
    real = build.constant(_PART, np.arange(found.count + short)[None] < found.count)
    return replace(whole, valid=build.op(_PART, "And", [whole.valid, real]))


def _settle(build: GraphBuilder, overlaps: ir.Value, valid: ir.Value, count: int) -> ir.Value:
    """keep bool (N, K): the step of the module's head, until nothing changes.

    Args:
        build: where to.
        overlaps: 1 where an earlier box overlaps too much, float32 (N, K, K).
        valid: bool (N, K).
        count: K.
    """
    step, going = _counters(build, "step")
    before = _value(build, "kept", ir.DataType.BOOL, [None, count])
    body = build.subgraph("suppression_step", [step, going, before])
    kept = body.op(_PART, "Cast", [before], {"to": ir.DataType.FLOAT})
    after = body.op(_PART, "And", [_free(body, overlaps, kept), valid])
    moved = body.op(_PART, "Xor", [after, before])
    moved = body.op(_PART, "Cast", [moved], {"to": ir.DataType.INT32})
    most = body.op(_PART, "ReduceMax", [moved], {"keepdims": 0})
    body.graph.outputs.extend([body.op(_PART, "Cast", [most], {"to": ir.DataType.BOOL}), after])
    # One step more than the longest chain has links.
    return _loop(build, body, count + 1, [valid])


def _free(build: GraphBuilder, overlaps: ir.Value, kept: ir.Value) -> ir.Value:
    """bool (N, A): which rows of overlaps (N, A, B) meet nothing of kept (N, B)."""
    column = build.op(_PART, "Unsqueeze", [kept, build.ints(_PART, [2])])
    hits = build.op(_PART, "MatMul", [overlaps, column])
    hits = build.op(_PART, "Squeeze", [hits, build.ints(_PART, [2])])
    return build.op(_PART, "Less", [hits, build.floats(_PART, 0.5)])


def _overlaps(build: GraphBuilder, those: _Group, others: _Group, threshold: float) -> ir.Value:
    """1 where two boxes of one label have an IoU above the threshold, float32 (N, A, B)."""
    a, b = _ends(build, those), [_row(build, v) for v in _ends(build, others)]
    sides = [_shared(build, (a[k], a[k + 2]), (b[k], b[k + 2])) for k in (0, 1)]
    shared = build.op(_PART, "Mul", sides)
    both = build.op(_PART, "Add", [_area(build, a), _area(build, b)])
    union = build.op(_PART, "Sub", [both, shared])
    # Two boxes without area have no IoU, and neither suppresses the other.
    positive = build.op(_PART, "Greater", [union, build.floats(_PART, 0.0)])
    safe = build.op(_PART, "Where", [positive, union, build.floats(_PART, 1.0)])
    iou = build.op(_PART, "Div", [shared, safe])
    over = build.op(_PART, "Greater", [iou, build.floats(_PART, threshold)])
    column = build.op(_PART, "Unsqueeze", [those.labels, build.ints(_PART, [2])])
    row = build.op(_PART, "Unsqueeze", [others.labels, build.ints(_PART, [1])])
    over = build.op(_PART, "And", [over, build.op(_PART, "Equal", [column, row])])
    return build.op(_PART, "Cast", [over], {"to": ir.DataType.FLOAT})


def _ends(build: GraphBuilder, found: _Group) -> Sequence[ir.Value]:
    """x1, y1, x2, y2, each (N, K, 1)."""
    return build.ops(_PART, "Split", [found.boxes], 4, {"axis": 2, "num_outputs": 4})


def _area(build: GraphBuilder, ends: Sequence[ir.Value]) -> ir.Value:
    x1, y1, x2, y2 = ends
    return build.op(
        _PART, "Mul", [build.op(_PART, "Sub", [x2, x1]), build.op(_PART, "Sub", [y2, y1])]
    )


def _shared(
    build: GraphBuilder, a: tuple[ir.Value, ir.Value], b: tuple[ir.Value, ir.Value]
) -> ir.Value:
    """Length of what every two intervals share, (N, A, B), from ends (N, A, 1) and (N, 1, B)."""
    first = build.op(_PART, "Max", [a[0], b[0]])
    last = build.op(_PART, "Min", [a[1], b[1]])
    length = build.op(_PART, "Sub", [last, first])
    return build.op(_PART, "Max", [length, build.floats(_PART, 0.0)])


def _row(build: GraphBuilder, column: ir.Value) -> ir.Value:
    return build.op(_PART, "Transpose", [column], {"perm": [0, 2, 1]})


def _loop(
    build: GraphBuilder, body: GraphBuilder, times: int, initial: Sequence[ir.Value]
) -> ir.Value:
    """At most ``times`` runs of a body, until its first output is false; its one result."""
    node = ir.node(
        "Loop",
        inputs=[build.ints(_PART, times), build.constant(_PART, np.asarray(True)), *initial],
        attributes={"body": body.graph},
        num_outputs=1,
    )
    build.append(node, _PART)
    return node.outputs[0]


def _counters(build: GraphBuilder, name: str) -> tuple[ir.Value, ir.Value]:
    """Inputs that every body has: the number of the run, and whether it goes on."""
    return (
        _value(build, name, ir.DataType.INT64, []),
        _value(build, f"{name}_going", ir.DataType.BOOL, []),
    )


def _value(build: GraphBuilder, name: str, dtype: ir.DataType, shape: list[int | None]) -> ir.Value:
    return ir.Value(
        name=build.unique(f"{_PART}/{name}"), type=ir.TensorType(dtype), shape=ir.Shape(shape)
    )

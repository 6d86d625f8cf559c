"""Emits z-score and cascade of a tap onto the graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from zmask_export.fuse.builder import GraphBuilder
from zmask_export.fuse.plan import TapPlan
from zmask_export.fuse.stages import Totals, emit_block
from zmask_export.spec import SMALLEST_STD, Size


def emit_zscore(
    build: GraphBuilder,
    tap: str,
    activation: ir.Value,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> ir.Value:
    """z = (h - mean) * scale per channel, with scale 0 for dead channels.

    One shift and one scale, in this order: h * scale - mean * scale would cancel where a channel varies by
    little more than the rounding of its mean.

    Args:
        build: where to.
        tap: name.
        activation: (N, C, h, w).
        mean: (C,).
        std: (C,).
    """
    scale = np.divide(1.0, std, out=np.zeros(std.shape), where=std >= SMALLEST_STD)
    part = f"zscore/{tap}"
    shaped = (1, -1, 1, 1)
    centred = build.op(part, "Sub", [activation, build.floats(part, mean.reshape(shaped))])
    return build.op(part, "Mul", [centred, build.floats(part, scale.reshape(shaped))])


def emit_heatmaps(
    build: GraphBuilder, plan: TapPlan, z: ir.Value, batch: ir.Value, grid: Size
) -> dict[str, ir.Value]:
    """The heatmaps (N, 1, HR, WR) of one tap, by branch.

    Args:
        build: where to.
        plan: the tap's lowering.
        z: z-scores (N, C, h, w).
        batch: int64 (1,), N.
        grid: (HR, WR).
    """
    part = f"cascade/{plan.tap}"
    rows = plan.lowering.axis == "rows"
    laid = build.op(part, "Transpose", [z], {"perm": [0, 2, 1, 3] if rows else [0, 3, 1, 2]})
    if plan.block is None:
        totals = emit_block(build, part, plan, laid, plan.shape[0])
    else:
        totals = _loop(build, part, plan, plan.block, laid, batch, grid)
    maps = {}
    for branch, (total, norm) in totals.items():
        heatmap = _finish(build, part, plan.shape[0], total, norm)
        if not rows:
            heatmap = build.op(part, "Transpose", [heatmap], {"perm": [0, 2, 1]})
        maps[branch] = build.op(part, "Unsqueeze", [heatmap, build.ints(part, [1])])
    return maps


def _loop(
    build: GraphBuilder,
    part: str,
    plan: TapPlan,
    block: int,
    z: ir.Value,
    batch: ir.Value,
    grid: Size,
) -> Totals:
    channels, h, w = plan.shape
    count = channels // block
    rows = plan.lowering.axis == "rows"
    n1, n2 = (h, w) if rows else (w, h)
    cells = list(grid) if rows else [grid[1], grid[0]]
    blocks = build.op(part, "Reshape", [z, build.ints(part, [0, n1, count, block, n2])])
    carried: list[tuple[str, str, ir.Value]] = []
    zero = build.floats(part, 0.0)
    for branch, chain in plan.branches.items():
        shape = build.op(part, "Concat", [batch, build.ints(part, cells)], {"axis": 0})
        carried.append((branch, "sum", build.op(part, "Expand", [zero, shape])))
        if len(chain) > 1:
            shape = build.op(part, "Concat", [batch, build.ints(part, [1])], {"axis": 0})
            carried.append((branch, "max", build.op(part, "Expand", [zero, shape])))

    index = _scalar(f"{part}/index", ir.DataType.INT64)
    going = _scalar(f"{part}/going", ir.DataType.BOOL)
    inputs = [
        ir.Value(
            name=f"{part}/{branch}.{kind}",
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape([None, *(cells if kind == "sum" else (1,))]),
        )
        for branch, kind, _ in carried
    ]
    body = build.subgraph(f"{part}/body", [index, going, *inputs])
    inner = emit_block(
        body, part, plan, body.op(part, "Gather", [blocks, index], {"axis": 2}), block
    )
    outputs = [body.op(part, "Identity", [going])]
    for (branch, kind, _), value in zip(carried, inputs, strict=True):
        total, norm = inner[branch]
        fresh = total if kind == "sum" or norm is None else norm
        outputs.append(body.op(part, "Add" if kind == "sum" else "Max", [value, fresh]))
    body.graph.outputs.extend(outputs)

    node = ir.node(
        "Loop",
        inputs=[
            build.ints(part, count),
            build.constant(part, np.asarray(True)),
            *(initial for _, _, initial in carried),
        ],
        attributes={"body": body.graph},
        num_outputs=len(carried),
    )
    build.append(node, part)
    results = {
        (branch, kind): value
        for (branch, kind, _), value in zip(carried, node.outputs, strict=True)
    }
    return {
        branch: (results[branch, "sum"], results.get((branch, "max"))) for branch in plan.branches
    }


def _scalar(name: str, dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([]))


def _finish(
    build: GraphBuilder, part: str, channels: int, total: ir.Value, norm: ir.Value | None
) -> ir.Value:
    """H = sum |Q_m| / (C max |Q_{m-1}|); where the maximum is 0 the sum is 0 too, and so is H."""
    mean = build.op(part, "Mul", [total, build.floats(part, 1 / channels)])
    if norm is None:
        return mean
    norm = build.op(part, "Unsqueeze", [norm, build.ints(part, [2])])
    positive = build.op(part, "Greater", [norm, build.floats(part, 0.0)])
    safe = build.op(part, "Where", [positive, norm, build.floats(part, 1.0)])
    return build.op(part, "Div", [mean, safe])


def maximum(build: GraphBuilder, part: str, maps: Mapping[str, ir.Value]) -> ir.Value:
    """Pixel-wise maximum of heatmaps of one shape."""
    values = list(maps.values())
    if len(values) == 1:
        return build.op(part, "Identity", values)
    return build.op(part, "Max", values)

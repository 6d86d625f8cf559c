"""Emits z-score and cascade of a tap onto the graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from zmask_export.fuse.builder import GraphBuilder
from zmask_export.fuse.plan import Stage, TapPlan
from zmask_export.spec import Size


def emit_zscore(
    build: GraphBuilder,
    tap: str,
    activation: ir.Value,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> ir.Value:
    """z = h * scale + shift per channel, with scale 0 for dead channels.

    Args:
        build: where to.
        tap: name.
        activation: (N, C, h, w).
        mean: (C,).
        std: (C,).
    """
    scale = np.divide(1.0, std, out=np.zeros(std.shape), where=std > 0)
    shift = -mean.astype(np.float64) * scale
    part = f"zscore/{tap}"
    shaped = (1, -1, 1, 1)
    scaled = build.op(part, "Mul", [activation, build.floats(part, scale.reshape(shaped))])
    return build.op(part, "Add", [scaled, build.floats(part, shift.reshape(shaped))])


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
    if plan.block is None:
        totals = _block(build, part, plan, z)
    else:
        totals = _loop(build, part, plan, plan.block, z, batch, grid)
    return {
        branch: _finish(build, part, plan.shape[0], total, norm)
        for branch, (total, norm) in totals.items()
    }


Totals = dict[str, tuple[ir.Value, ir.Value | None]]
"""Branch to (sum over channels of |Q_m|, max of |Q_{m-1}| or None for a single stage)."""


def _block(build: GraphBuilder, part: str, plan: TapPlan, z: ir.Value) -> Totals:
    products: dict[tuple[Size, ...], ir.Value] = {}
    magnitudes: dict[tuple[Size, ...], ir.Value] = {}

    def magnitude(key: tuple[Size, ...]) -> ir.Value:
        if key not in magnitudes:
            magnitudes[key] = build.op(part, "Abs", [products[key]])
        return magnitudes[key]

    totals: Totals = {}
    for branch, chain in plan.branches.items():
        for stage in chain:
            if stage.key not in products:
                pooled = _pool(build, part, stage, z)
                before = products.get(stage.key[:-1])
                products[stage.key] = (
                    pooled if before is None else build.op(part, "Mul", [pooled, before])
                )
        last = chain[-1].key
        total = build.op(
            part, "ReduceSum", [magnitude(last), build.ints(part, [1])], {"keepdims": 1}
        )
        norm = None
        if len(chain) > 1:
            axes = build.ints(part, [1, 2, 3])
            norm = build.op(part, "ReduceMax", [magnitude(last[:-1]), axes], {"keepdims": 1})
        totals[branch] = (total, norm)
    return totals


def _pool(build: GraphBuilder, part: str, stage: Stage, z: ir.Value) -> ir.Value:
    left = build.floats(part, stage.left)
    right = build.floats(part, stage.right)
    if stage.order == "left":
        return build.op(part, "MatMul", [build.op(part, "MatMul", [left, z]), right])
    return build.op(part, "MatMul", [left, build.op(part, "MatMul", [z, right])])


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
    blocks = build.op(part, "Reshape", [z, build.ints(part, [-1, count, block, h, w])])
    carried: list[tuple[str, str, ir.Value]] = []
    zero = build.floats(part, 0.0)
    for branch, chain in plan.branches.items():
        shape = build.op(part, "Concat", [batch, build.ints(part, [1, *grid])], {"axis": 0})
        carried.append((branch, "sum", build.op(part, "Expand", [zero, shape])))
        if len(chain) > 1:
            shape = build.op(part, "Concat", [batch, build.ints(part, [1, 1, 1])], {"axis": 0})
            carried.append((branch, "max", build.op(part, "Expand", [zero, shape])))

    index = _scalar(f"{part}/index", ir.DataType.INT64)
    going = _scalar(f"{part}/going", ir.DataType.BOOL)
    inputs = [
        ir.Value(
            name=f"{part}/{branch}.{kind}",
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape([None, 1, *(grid if kind == "sum" else (1, 1))]),
        )
        for branch, kind, _ in carried
    ]
    body = build.subgraph(f"{part}/body", [index, going, *inputs])
    inner = _block(body, part, plan, body.op(part, "Gather", [blocks, index], {"axis": 1}))
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
    positive = build.op(part, "Greater", [norm, build.floats(part, 0.0)])
    safe = build.op(part, "Where", [positive, norm, build.floats(part, 1.0)])
    return build.op(part, "Div", [mean, safe])


def maximum(build: GraphBuilder, part: str, maps: Mapping[str, ir.Value]) -> ir.Value:
    """Pixel-wise maximum of heatmaps of one shape."""
    values = list(maps.values())
    if len(values) == 1:
        return build.op(part, "Identity", values)
    return build.op(part, "Max", values)

"""Emits the stages of one block of channels: products in strips, their telescoped product, its folds.

Maps are laid out (N, G1, channels, G2): the axis that is cut into strips lies in front.
"""

from __future__ import annotations

import onnx_ir as ir

from zmask_export.fuse.bands import Stage, Strip
from zmask_export.fuse.builder import GraphBuilder
from zmask_export.fuse.plan import TapPlan
from zmask_export.spec import Size

Totals = dict[str, tuple[ir.Value, ir.Value | None]]
"""Branch to (channel sum of |Q_m| (N, G1, G2), max of |Q_{m-1}| (N, 1) or None for a single stage)."""

Folds = dict[tuple[Size, ...], list[ir.Value]]
"""Stage to what is folded of it, strip by strip."""


def emit_block(build: GraphBuilder, part: str, plan: TapPlan, z: ir.Value, channels: int) -> Totals:
    """Sums and maxima of ``channels`` channels.

    Args:
        build: where to.
        part: which part of the engine the nodes belong to.
        plan: the tap's lowering.
        z: z-scores (N, n1, channels, n2).
        channels: how many.
    """
    if plan.resize is not None:
        strips = [
            _product(build, part, plan.resize, strip, z, channels) for strip in plan.resize.strips
        ]
        z = _joined(build, part, strips)
    chains = list(plan.branches.values())
    summed: Folds = {chain[-1].key: [] for chain in chains}
    topped: Folds = {chain[-2].key: [] for chain in chains if len(chain) > 1}
    for index in range(plan.lowering.strips):
        magnitudes: dict[tuple[Size, ...], ir.Value] = {}
        for key, stage in plan.stages.items():
            value = _product(build, part, stage, stage.strips[index], z, channels)
            if key[:-1] in magnitudes:
                value = build.op(part, "Mul", [magnitudes[key[:-1]], value])
            if key in summed or key in topped:
                value = build.op(part, "Abs", [value])
            magnitudes[key] = value
            if key in summed:
                axes = build.ints(part, [2])
                summed[key].append(build.op(part, "ReduceSum", [value, axes], {"keepdims": 0}))
            if key in topped:
                topped[key].append(_highest(build, part, value))
    sums = {key: _joined(build, part, values) for key, values in summed.items()}
    tops = {
        key: values[0] if len(values) == 1 else build.op(part, "Max", values)
        for key, values in topped.items()
    }
    return {
        branch: (sums[chain[-1].key], tops[chain[-2].key] if len(chain) > 1 else None)
        for branch, chain in plan.branches.items()
    }


def _product(
    build: GraphBuilder, part: str, stage: Stage, strip: Strip, z: ir.Value, channels: int
) -> ir.Value:
    """A strip (N, height, channels, G2) of L z W^T."""
    g2, n2 = stage.second.shape
    if strip.depth < stage.first.shape[1]:
        ends = (build.ints(part, [end]) for end in (strip.low, strip.high, 1))
        z = build.op(part, "Slice", [z, *ends])
    matrix = build.floats(part, stage.first[strip.start : strip.stop, strip.low : strip.high])
    other = build.floats(part, stage.second.T)

    def along_first(value: ir.Value, width: int) -> ir.Value:
        flat = build.op(
            part, "Reshape", [value, build.ints(part, [0, strip.depth, channels * width])]
        )
        contracted = build.op(part, "MatMul", [matrix, flat])
        shape = build.ints(part, [0, strip.height, channels, width])
        return build.op(part, "Reshape", [contracted, shape])

    if stage.first_first(strip):
        return build.op(part, "MatMul", [along_first(z, n2), other])
    return along_first(build.op(part, "MatMul", [z, other]), g2)


def _highest(build: GraphBuilder, part: str, value: ir.Value) -> ir.Value:
    # In two steps, of which ONNX Runtime spreads the first over its threads.
    rows = build.op(part, "ReduceMax", [value, build.ints(part, [2, 3])], {"keepdims": 0})
    return build.op(part, "ReduceMax", [rows, build.ints(part, [1])], {"keepdims": 1})


def _joined(build: GraphBuilder, part: str, strips: list[ir.Value]) -> ir.Value:
    return strips[0] if len(strips) == 1 else build.op(part, "Concat", strips, {"axis": 1})

"""Emits the Fusion and Detection Block (Eq. 4) onto the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from zmask_export.fuse.builder import GraphBuilder
from zmask_export.spec import Size

PART = "fusion"


@dataclass(frozen=True)
class Found:
    """Values of the detection: soft mask, score, flag, and the mask at image resolution."""

    soft_mask: ir.Value
    score: ir.Value
    flag: ir.Value
    mask: ir.Value


def emit_fusion(
    build: GraphBuilder,
    image: ir.Value,
    shallow: ir.Value,
    deep: ir.Value,
    parameters: NDArray[np.float32],
    threshold: ir.Value,
    *,
    size: Size,
    grid: Size,
    corners: int,
) -> Found:
    """Soft mask, score, flag and mask.

    Args:
        build: where to.
        image: (N, 3, H, W).
        shallow: HS (N, 1, HR, WR).
        deep: HD (N, 1, HR, WR).
        parameters: (8,).
        threshold: lambda0, float32 (1,).
        size: image (H, W).
        grid: (HR, WR).
        corners: reach in cells, see ``DefenseSpec.corners``.
    """
    gate = _soft_threshold(build, deep, parameters[:4])
    gated = build.op(PART, "Mul", [gate, shallow])
    soft = _soft_threshold(build, gated, parameters[4:])
    score = _require_finite(build, image, _score(build, shallow, deep, soft))
    # Written so that a score that is not a number raises the flag.
    flag = build.op(PART, "Not", [build.op(PART, "LessOrEqual", [score, threshold])])
    # Nothing is known of where, then: nothing is covered.
    certain = build.op(PART, "Greater", [score, threshold])
    shaped = build.op(PART, "Reshape", [certain, build.ints(PART, [-1, 1, 1, 1])])
    above = build.op(PART, "Greater", [soft, build.floats(PART, 0.5)])
    if corners:
        above = _fill_corners(build, above, corners)
    covered = build.op(PART, "And", [above, shaped])
    keep = build.op(PART, "Where", [covered, build.floats(PART, 0.0), build.floats(PART, 1.0)])
    rows = build.op(PART, "Gather", [keep, _nearest(build, size[0], grid[0])], {"axis": 2})
    mask = build.op(PART, "Gather", [rows, _nearest(build, size[1], grid[1])], {"axis": 3})
    return Found(soft, score, flag, mask)


def _soft_threshold(build: GraphBuilder, x: ir.Value, parameters: NDArray[np.float32]) -> ir.Value:
    for index, activation in ((0, "Tanh"), (2, "Sigmoid")):
        x = build.op(PART, "Mul", [x, build.floats(PART, parameters[index])])
        x = build.op(PART, "Add", [x, build.floats(PART, parameters[index + 1])])
        x = build.op(PART, activation, [x])
    return x


def _fill_corners(build: GraphBuilder, covered: ir.Value, reach: int) -> ir.Value:
    """A cell is covered where its row and its column both hold a covered cell within reach."""
    zero = build.floats(PART, 0.0)
    cells = build.op(PART, "Where", [covered, build.floats(PART, 1.0), zero])
    across, down = (
        build.op(
            PART,
            "MaxPool",
            [cells],
            {"kernel_shape": [2 * r + 1 for r in side], "pads": [*side, *side]},
        )
        for side in ((0, reach), (reach, 0))
    )
    return build.op(PART, "Greater", [build.op(PART, "Min", [across, down]), zero])


def _score(build: GraphBuilder, shallow: ir.Value, deep: ir.Value, soft: ir.Value) -> ir.Value:
    """d = sum(HS * HD * M~) / sum(M~), 0 where the soft mask sums to 0."""
    axes = build.ints(PART, [1, 2, 3])
    weighted = build.op(PART, "Mul", [build.op(PART, "Mul", [shallow, deep]), soft])
    weighted = build.op(PART, "ReduceSum", [weighted, axes], {"keepdims": 0})
    total = build.op(PART, "ReduceSum", [soft, axes], {"keepdims": 0})
    positive = build.op(PART, "Greater", [total, build.floats(PART, 0.0)])
    safe = build.op(PART, "Where", [positive, total, build.floats(PART, 1.0)])
    return build.op(PART, "Div", [weighted, safe])


def _require_finite(build: GraphBuilder, image: ir.Value, score: ir.Value) -> ir.Value:
    """The score, NaN for an image that is not finite: a network may hide that from its taps."""
    # ReduceL1 is many times slower in ONNX Runtime.
    size = build.op(PART, "Abs", [image])
    total = build.op(PART, "ReduceSum", [size, build.ints(PART, [1, 2, 3])], {"keepdims": 0})
    # No compiler can fold this comparison, as it could x * 0 or x == x.
    limit = build.floats(PART, np.finfo(np.float32).max)
    finite = build.op(PART, "LessOrEqual", [total, limit])
    return build.op(PART, "Where", [finite, score, build.floats(PART, np.nan)])


def _nearest(build: GraphBuilder, size_out: int, size_in: int) -> ir.Value:
    """Source index of each output position: nearest neighbour, half-pixel centres, in integers."""
    indices = (2 * np.arange(size_out, dtype=np.int64) + 1) * size_in // (2 * size_out)
    return build.ints(PART, indices)

"""The floor: what the plan's arithmetic and traffic take at the rates that this machine reaches.

Nothing that multiplies the same matrices can be faster than this, in ONNX Runtime on this machine; another
plan can. Rates are the best of several runs, and bytes count at the rate of arrays that fit the caches, as
a plan's blocks do: both make the floor lower, never higher.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from overhead.cascade import deployed_run, zscores
from overhead.graphs import Graphs
from overhead.record import Floor, Rates, TapFloor
from zmask_export.export.bare import OPSET
from zmask_export.fuse.plan import TapPlan
from zmask_export.profiling.sessions import bound, open_session
from zmask_export.profiling.timing import spread, take_turns

_FLOAT = 4
# No tap has such a name.
_PRODUCT, _CACHED, _LARGE = "matrix product", "cached arrays", "large arrays"


@dataclass(frozen=True)
class Work:
    """What the rates are taken of.

    Attributes:
        side: of the square matrices of the product.
        cached: float32 numbers of an array that fits the caches, two of which are multiplied.
        large: of one that does not.
    """

    side: int = 2048
    cached: int = 1 << 17
    large: int = 1 << 24


SMALL = Work(side=512, large=1 << 20)
"""Work of a moment."""

_FEW, _MANY = 2, 64
"""Products of large arrays and of cached ones in a run."""


def measure_floor(graphs: Graphs, work: Work, rounds: int, threads: int) -> Floor:
    """The floor of every tap beside what its deployed cascade takes, in turns with the rates.

    Args:
        graphs: of the network.
        work: what the rates are taken of.
        rounds: of which the best counts for a rate, and the median for a cascade.
        threads: of ONNX Runtime.
    """
    defense = graphs.calibration.header.defense
    scores = zscores(graphs)
    cases = rate_cases(work, threads)
    for plan in graphs.plans:
        z = scores[plan.tap].contiguous()
        cases[plan.tap] = deployed_run(plan, z, defense, threads)
    times = take_turns(cases, rounds)
    reached = rates(work, times)
    return Floor(
        rates=reached,
        taps=tuple(
            tap_floor(plan, reached, spread(times[plan.tap]).median) for plan in graphs.plans
        ),
    )


def rate_cases(work: Work, threads: int) -> dict[str, Callable[[], None]]:
    """One run of each work."""
    side = work.side
    return {
        _PRODUCT: _run(_product(side), (side, side), threads),
        _CACHED: _run(_chain(work.cached, _MANY), (work.cached,), threads),
        _LARGE: _run(_chain(work.large, _FEW), (work.large,), threads),
    }


def rates(work: Work, times: Mapping[str, Sequence[float]]) -> Rates:
    """What ONNX Runtime reached, from the milliseconds of :func:`rate_cases`."""
    moved = 3 * _FLOAT  # two numbers are read and one is written
    return Rates(
        gflops=2 * work.side**3 / min(times[_PRODUCT]) / 1e6,
        cached_gbs=moved * work.cached * _MANY / min(times[_CACHED]) / 1e6,
        copy_gbs=moved * work.large * _FEW / min(times[_LARGE]) / 1e6,
    )


def tap_floor(plan: TapPlan, reached: Rates, measured_ms: float) -> TapFloor:
    """The floor of one tap's plan."""
    compute = 2 * plan.cost.multiply_adds / reached.gflops / 1e6
    move = plan.cost.bytes / max(reached.cached_gbs, reached.copy_gbs) / 1e6
    return TapFloor(
        tap=plan.tap,
        multiply_adds=plan.cost.multiply_adds,
        bytes=plan.cost.bytes,
        compute_ms=compute,
        move_ms=move,
        floor_ms=max(compute, move),
        measured_ms=measured_ms,
    )


def _run(model: bytes, shape: tuple[int, ...], threads: int) -> Callable[[], None]:
    x = np.random.default_rng(0).random(shape, np.float32)
    return bound(open_session(model, threads), {"x": x})


def _product(side: int) -> bytes:
    """x times a constant matrix, which ONNX Runtime may pack beforehand, as it does a plan's."""
    matrix = np.random.default_rng(1).random((side, side), np.float32)
    return _model([helper.make_node("MatMul", ["x", "w"], ["y"])], (side, side), matrix)


def _chain(length: int, count: int) -> bytes:
    """``count`` element-wise products, one after the other, so that starting a run hardly counts."""
    names = ["x", *(f"v{i}" for i in range(1, count)), "y"]
    nodes = [
        helper.make_node("Mul", [left, "w"], [right]) for left, right in itertools.pairwise(names)
    ]
    return _model(nodes, (length,), np.ones(length, np.float32))


def _model(
    nodes: Sequence[onnx.NodeProto], shape: tuple[int, ...], constant: NDArray[np.float32]
) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "rate",
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(constant, "w")],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return bytes(model.SerializeToString())

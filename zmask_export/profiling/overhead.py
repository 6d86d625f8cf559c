"""What ONNX Runtime's profiler itself costs, so that it can be taken off what it measured.

It writes down shapes and sizes after every node: a few microseconds, which add up in loops of small steps.
Some of them it gives to the node itself, the others to what is around it. A graph of nothing but small
steps shows how many.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zmask_export.profiling.parts import PartTimes

STEPS = 400
"""Turns of the loop."""
NODES = 6
"""Nodes of its body that compute."""
EVENTS = STEPS * (NODES + 1)
"""Events of a run, the loop itself aside: its condition is a node too."""
_STEP, _AROUND = "network", "gate"
"""Parts that the body's nodes and the loop are named after."""
_SHAPE = (1, 2, 2, 2)
_OPSET, _IR_VERSION = 20, 10


@dataclass(frozen=True)
class EventCost:
    """Milliseconds that an event costs: counted for its own node, and for what is around it."""

    inside: float
    outside: float

    def taken_off(self, run: PartTimes) -> dict[str, float]:
        """Milliseconds of a run's parts less what the profiler took; none falls below zero."""
        return {
            part: max(
                0.0,
                ms - self.inside * run.events.get(part, 0) - self.outside * run.held.get(part, 0),
            )
            for part, ms in run.parts_ms.items()
        }

    def of(self, run: PartTimes) -> float:
        """All that the profiler took of a run."""
        return (self.inside + self.outside) * sum(run.events.values())


def event_cost(
    plain: Sequence[float], profiled: Sequence[float], runs: Sequence[PartTimes]
) -> EventCost:
    """The cost of an event, by medians over runs of :func:`steps_graph`.

    Args:
        plain: milliseconds of runs without a profile.
        profiled: of runs with one.
        runs: what that profile says.
    """
    alone = float(np.median(plain))
    event = max(0.0, float(np.median(profiled)) - alone) / EVENTS
    # Without a profile a node takes no more than its share of the whole run.
    recorded = float(np.median([run.parts_ms[_STEP] for run in runs]))
    inside = min(event, max(0.0, recorded - alone) / EVENTS)
    return EventCost(inside, event - inside)


def steps_input() -> dict[str, NDArray[np.float32]]:
    """The input of :func:`steps_graph`."""
    return {"x": np.zeros(_SHAPE, np.float32)}


@functools.cache
def steps_graph() -> bytes:
    """An ONNX file whose run is ``EVENTS`` small nodes in a loop."""
    value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    flag = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.BOOL, shape=())
    index = helper.make_tensor_value_info("index", TensorProto.INT64, ())
    names = ["v0", *(f"v{i}" for i in range(1, NODES + 1))]
    inner = [
        helper.make_node("Add", [names[i], "x"], [names[i + 1]], name=f"{_STEP}/Add_{i}")
        for i in range(NODES)
    ]
    inner.append(helper.make_node("Identity", ["going"], ["on"], name=f"{_STEP}/Identity"))
    body = helper.make_graph(
        inner,
        "steps",
        [index, flag("going"), value("v0", shape=_SHAPE)],
        [flag("on"), value(names[-1], shape=_SHAPE)],
    )
    loop = helper.make_node("Loop", ["count", "", "x"], ["y"], name=f"{_AROUND}/Loop", body=body)
    count = numpy_helper.from_array(np.asarray(STEPS, np.int64), "count")
    graph = helper.make_graph(
        [loop], "g", [value("x", shape=_SHAPE)], [value("y", shape=_SHAPE)], [count]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    return bytes(model.SerializeToString())

"""What ONNX Runtime's profiler itself costs, so that it can be taken off what it measured.

It writes down shapes and sizes after every node, in the time that it then gives to the node: a few
microseconds, which add up in loops of small steps. A graph of nothing but such steps shows what one costs.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

STEPS = 400
"""Turns of the loop."""
NODES = 6
"""Nodes of its body that compute."""
EVENTS = STEPS * (NODES + 1)
"""Events of a run, the loop itself aside: its condition is a node too."""
_SHAPE = (1, 2, 2, 2)
_OPSET, _IR_VERSION = 20, 10


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
        helper.make_node("Add", [names[i], "x"], [names[i + 1]], name=f"steps/Add_{i}")
        for i in range(NODES)
    ]
    inner.append(helper.make_node("Identity", ["going"], ["on"], name="steps/Identity"))
    body = helper.make_graph(
        inner,
        "steps",
        [index, flag("going"), value("v0", shape=_SHAPE)],
        [flag("on"), value(names[-1], shape=_SHAPE)],
    )
    loop = helper.make_node("Loop", ["count", "", "x"], ["y"], name="steps/Loop", body=body)
    count = numpy_helper.from_array(np.asarray(STEPS, np.int64), "count")
    graph = helper.make_graph(
        [loop], "g", [value("x", shape=_SHAPE)], [value("y", shape=_SHAPE)], [count]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    return bytes(model.SerializeToString())

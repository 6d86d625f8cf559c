from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import helper

from zmask_export.profiling.parts import attribute, node_times


def _event(name: str, start: int, length: int) -> dict[str, Any]:
    category = "Session" if name == "model_run" else "Node"
    ending = "" if name == "model_run" else "_kernel_time"
    return {"cat": category, "name": name + ending, "ts": start, "dur": length}


def _graph(*nodes: onnx.NodeProto, name: str = "g") -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [])


def _node(kind: str, name: str, reads: str, makes: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, reads.split(), makes.split(), name=name, **attributes)


def test_a_loop_counts_without_its_body() -> None:
    events = [
        _event("model_run", 0, 100),
        _event("network/Conv", 5, 20),
        _event("cascade/a/Loop", 30, 60),
        _event("cascade/a/MatMul", 35, 10),
        _event("cascade/a/MatMul", 50, 15),
    ]
    (run,) = node_times(events)
    assert run.own == {
        (): 20,
        ("network/Conv",): 20,
        ("cascade/a/Loop",): 35,
        ("cascade/a/Loop", "cascade/a/MatMul"): 25,
    }
    assert run.total == sum(run.own.values()) == 100


def test_every_run_counts_for_itself_and_the_order_of_events_does_not_matter() -> None:
    run = [_event("model_run", 0, 10), _event("network/Conv", 0, 10)]
    second = [_event("model_run", 20, 30), _event("network/Conv", 22, 25)]
    found = node_times([*second, *run][::-1])
    assert [run.total for run in found] == [10, 30]
    assert [run.own for run in found] == [
        {(): 0, ("network/Conv",): 10},
        {(): 5, ("network/Conv",): 25},
    ]


def test_layout_nodes_serve_their_readers_and_renamed_convolutions_follow_their_makers() -> None:
    graph = _graph(
        _node("Sub", "network/Sub", "image mean", "a"),
        _node("ReorderInput", "ReorderInput", "a", "b"),
        _node("Conv", "tap.x_nchwc", "b w", "c"),
        _node("ReorderOutput", "ReorderOutput_1", "c", "d"),
        _node("Mul", "zscore/x/Mul", "d scale", "z"),
        _node("ReorderOutput", "ReorderOutput_2", "c", "e"),
        _node("Resize", "network/up/Resize", "e", "f"),
        _node("ReorderOutput", "ReorderOutput_3", "c", "logits"),
        _node("MatMul", "cascade/x/MatMul", "z m", "q"),
    )
    assert attribute(graph, []) == {
        ("network/Sub",): "network",
        ("ReorderInput",): "network",
        ("tap.x_nchwc",): "network",
        ("ReorderOutput_1",): "zscore/x",
        ("zscore/x/Mul",): "zscore/x",
        ("ReorderOutput_2",): "network",
        ("network/up/Resize",): "network",
        ("ReorderOutput_3",): "network",
        ("cascade/x/MatMul",): "cascade/x",
    }


@pytest.mark.parametrize(
    ("ran", "part"), [("second_pass/Conv", "second_pass"), ("network/Conv", "network")]
)
def test_of_branches_that_share_a_name_the_one_that_ran_counts(ran: str, part: str) -> None:
    then = _graph(
        _node("ReorderInput", "Reorder", "covered", "r"),
        _node("Conv", "second_pass/Conv", "r w", "s"),
        name="then",
    )
    otherwise = _graph(
        _node("ReorderInput", "Reorder", "first", "r"),
        _node("Conv", "network/Conv", "r w", "s"),
        name="else",
    )
    gate = _node("If", "gate/If", "flag", "out", then_branch=then, else_branch=otherwise)
    paths = [("gate/If",), ("gate/If", "Reorder"), ("gate/If", ran)]
    owners = attribute(_graph(gate), paths)
    assert [owners[path] for path in paths] == ["gate", part, part]

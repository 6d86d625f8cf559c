"""Rounding to 16 bits in float32, against numbers that were really stored in 16 bits."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from tests.small import (
    as_float,
    exported,
    fresh,
    random_calibration,
    tiny_bare,
    tiny_defense,
    tiny_images,
)
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.rounding import rounded, rounded_parts
from zmask_export.backends.runner import Arrays
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.precision.half import lower_types
from zmask_export.spec import Policy, Precision

SHORT = {TensorProto.FLOAT16: torch.float16, TensorProto.BFLOAT16: torch.bfloat16}
IMAGES = as_float(tiny_images())
PARTS = ("zscore", "cascade", "fusion")


@functools.cache
def _fused(precision: str, policy: Policy = Policy.GATED) -> bytes:
    model = fresh(exported(None))
    if precision != "fp32":
        lower_types(model, precision)  # type: ignore[arg-type]
    calibration = random_calibration(tiny_bare(), tiny_defense())
    return fuse(model, calibration, FuseOptions(policy)).to_bytes()


def _run(
    model: onnx.ModelProto | bytes, threshold: float = 1.0, precision: Precision = "fp32"
) -> Arrays:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    limit = np.array([threshold], np.float32)
    runner = OnnxRuntimeRunner(data, threads=1, precision=precision)
    return runner.run({"image": IMAGES, "threshold": limit})


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


@pytest.mark.parametrize("kind", SHORT)
def test_every_operator_rounds_its_result(kind: int) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, 8, 3, 3)).astype(np.float32)
    stored = torch.from_numpy(weights).to(SHORT[kind]).float().numpy()
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=kind),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1] * 4),
        helper.make_node("Mul", ["b", "b"], ["c"]),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    shape = [1, 8, 6, 6]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", kind, weights.shape, stored.ravel())],
        value_info=[helper.make_tensor_value_info(name, kind, shape) for name in "abcd"],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    image = rng.normal(size=shape).astype(np.float32)
    precision: Precision = "fp16" if kind == TensorProto.FLOAT16 else "bf16"
    runner = OnnxRuntimeRunner(model.SerializeToString(), threads=1, precision=precision)
    got = runner.run({"x": image})["y"]

    def store(value: torch.Tensor) -> torch.Tensor:
        return value.to(SHORT[kind]).float()

    b = store(torch.conv2d(store(torch.from_numpy(image)), torch.from_numpy(stored), padding=1))
    expected = store(store(b * b) + b).numpy()
    # A sum in another order may round to the neighbour.
    step = 2.0 ** (-9 if kind == TensorProto.FLOAT16 else -6)
    np.testing.assert_allclose(got, expected, rtol=step, atol=step)
    assert (got == expected).mean() > 0.99
    assert np.array_equal(got, store(torch.from_numpy(got)).numpy())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("policy", list(Policy))
def test_no_value_of_a_rounded_graph_is_short_but_between_two_casts(
    precision: str, policy: Policy
) -> None:
    model = rounded(onnx.load_model_from_string(_fused(precision, policy)))
    assert not {weight.data_type for weight in model.graph.initializer} & SHORT.keys()
    onnx.checker.check_model(model, full_check=True)
    made_by = {name: node for node in _nodes(model.graph) for name in node.output}
    for node in _nodes(model.graph):
        for name in node.input:
            source = made_by.get(name)
            if source is not None and source.op_type == "Cast":
                (to,) = (a.i for a in source.attribute if a.name == "to")
                assert node.op_type == "Cast" or to not in SHORT


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_both_branches_of_a_gate_round_alike(precision: Precision) -> None:
    gated, always = _fused(precision), _fused(precision, Policy.MASK)
    for threshold in (0.0, 1e30):
        a, b = (_run(model, threshold, precision) for model in (gated, always))
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("part", PARTS)
def test_rounding_a_part_changes_what_hangs_on_it_by_little(part: str) -> None:
    proto = onnx.load_model_from_string(_fused("fp32"))
    full = _run(proto)
    got = _run(rounded_parts(proto, [part], ir.DataType.BFLOAT16))
    assert got.keys() == full.keys()
    assert np.array_equal(got["heatmap_deep"], full["heatmap_deep"]) == (part == "fusion")
    assert not np.array_equal(got["score"], full["score"])
    np.testing.assert_allclose(got["score"], full["score"], rtol=0.2)


def test_a_cascade_in_float16_overflows() -> None:
    # Why it stays float32: products of several stages span more than float16 does.
    proto = onnx.load_model_from_string(_fused("fp32"))
    got = _run(rounded_parts(proto, ["cascade"], ir.DataType.FLOAT16))
    assert not np.isfinite(got["score"]).all()


def test_rounding_no_part_changes_nothing() -> None:
    proto = onnx.load_model_from_string(_fused("fp32"))
    full, got = _run(proto), _run(rounded_parts(proto, [], ir.DataType.FLOAT16))
    for name, value in full.items():
        np.testing.assert_array_equal(got[name], value)


def test_a_rounded_parts_results_are_short() -> None:
    proto = onnx.load_model_from_string(_fused("fp32"))
    got = _run(rounded_parts(proto, PARTS, ir.DataType.BFLOAT16))
    for name in ("score", "soft_mask", "heatmap_shallow"):
        assert not (got[name].view(np.uint32) & 0xFFFF).any(), name

"""int8 networks: where the pairs stand, what they compute, what is stored."""

from __future__ import annotations

import functools
import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from tests.attack.detectors import picture
from tests.precision.networks import exported_detector
from tests.small import as_float, exported, fresh, tiny_images, to_bytes
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.data.images import to_float
from zmask_export.errors import CompileError
from zmask_export.precision.quantise import quantise
from zmask_export.precision.region import PRODUCTS, first_products, name_kept
from zmask_export.spec import KEPT

IMAGES = as_float(tiny_images())
FIRST = f"network/stem.0/Conv{KEPT}"


def _named_and_quantised(images: list[np.ndarray]) -> ir.Model:  # type: ignore[type-arg]
    model = fresh(exported(None))
    name_kept(first_products(model.graph))
    return quantise(model, images)


@functools.cache
def _quantised() -> bytes:
    return to_bytes(_named_and_quantised([image[None] for image in IMAGES]))


def _graph() -> onnx.GraphProto:
    return onnx.load_model_from_string(_quantised()).graph


def test_every_product_reads_what_was_dequantised_and_nothing_else_does() -> None:
    made_by = {name: node for node in _graph().node for name in node.output}
    pairs = []
    for node in _graph().node:
        sources = [made_by.get(name) for name in node.input]
        short = [s for s in sources if s is not None and s.op_type == "DequantizeLinear"]
        if node.name == FIRST:
            assert short == []
        elif node.op_type in PRODUCTS:
            assert len(short) == 2
            pairs.append(short[0].name)
        else:
            assert short == [], node.name
    assert len(set(pairs)) == len(pairs)


def test_weights_are_int8_per_channel_and_biases_float32() -> None:
    weights = {w.name: w for w in _graph().initializer}
    for node in _graph().node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            assert weights[node.input[0]].data_type == TensorProto.INT8
            channels = weights[node.input[0]].dims[0]
            assert list(weights[node.input[1]].dims) == [channels]
            assert not onnx.numpy_helper.to_array(weights[node.input[2]]).any()
    convolutions = [node for node in _graph().node if node.op_type == "Conv"]
    assert len(convolutions) == 4
    for node in convolutions:
        if len(node.input) > 2:
            assert weights[node.input[2]].data_type == TensorProto.FLOAT


def test_results_are_near_and_not_equal() -> None:
    full = OnnxRuntimeRunner(exported(None), threads=1).run({"image": IMAGES})
    low = OnnxRuntimeRunner(_quantised(), threads=1).run({"image": IMAGES})
    assert low.keys() == full.keys()
    for name, value in full.items():
        error = np.abs(low[name] - value).max() / np.abs(value).max()
        assert error == 0 if name == "tap.stem" else 1e-4 < error < 0.1, name


def test_a_tap_is_what_stands_in_front_of_the_pair() -> None:
    read = {node.input[0] for node in _graph().node if node.op_type == "QuantizeLinear"}
    assert "tap.mid" in read
    taps = OnnxRuntimeRunner(_quantised(), threads=1).run({"image": IMAGES})
    assert np.unique(taps["tap.mid"]).size > 256


def test_ranges_are_those_of_the_images() -> None:
    def scales(images: list[np.ndarray]) -> dict[str, float]:  # type: ignore[type-arg]
        graph = onnx.load_model_from_string(to_bytes(quantise(fresh(exported(None)), images))).graph
        values = {w.name: w for w in graph.initializer}
        return {
            node.name: float(onnx.numpy_helper.to_array(values[node.input[1]]))
            for node in graph.node
            if node.op_type == "QuantizeLinear"
        }

    grey = np.full_like(IMAGES[:1], 0.5)
    alone, both = scales([IMAGES[:1]]), scales([grey, IMAGES[:1]])
    assert alone.keys() == both.keys()
    assert max(alone.values()) > max(scales([grey]).values())
    for name, scale in alone.items():
        assert both[name] >= scale * 0.999, name


def test_a_two_stage_detector_is_quantised_behind_its_suppression_too() -> None:
    images = [to_float([picture(seed, 2).image]) for seed in range(3)]
    model = quantise(fresh(exported_detector("fasterrcnn")), images)
    graph = onnx.load_model_from_string(to_bytes(model)).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type in PRODUCTS]
    assert any("roi_heads" in node.name for node in products)
    for node in products:
        assert [made_by[name] for name in node.input[:2]] == ["DequantizeLinear"] * 2, node.name
    assert any(node.op_type == "GreedyKeep" for node in graph.node)


def test_no_image_at_all_is_refused() -> None:
    with pytest.raises(CompileError, match="cannot be quantised"):
        quantise(fresh(exported(None)), [])


def test_the_quantiser_leaves_the_users_logging_alone() -> None:
    level = logging.getLogger().level
    quantise(fresh(exported(None)), [IMAGES[:1]])
    assert logging.getLogger().level == level


def test_two_quantisations_give_the_same_bytes() -> None:
    again = to_bytes(_named_and_quantised([image[None] for image in IMAGES]))
    assert again == _quantised()

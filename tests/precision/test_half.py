"""float16 and bfloat16 networks: where the types stand, what they compute, what is stored."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from tests.attack.detectors import KINDS
from tests.precision.networks import exported_detector
from tests.small import as_float, exported, fresh, tiny_images, to_bytes
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.errors import CompileError
from zmask_export.precision.half import BFLOAT16_OPSET, HALVES, lower_types
from zmask_export.precision.lower import lower
from zmask_export.precision.region import (
    PRODUCTS,
    SHARES,
    first_products,
    low_region,
    name_kept,
    products_to_taps,
)
from zmask_export.spec import KEPT

IMAGES = as_float(tiny_images())
# Steps between neighbouring numbers, relative.
STEP = {"fp16": 2.0**-10, "bf16": 2.0**-7}


@functools.cache
def _lowered(precision: str) -> bytes:
    model = fresh(exported(None))
    return to_bytes(lower(model, precision, []))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", HALVES)
def test_inputs_taps_and_outputs_stay_float32_under_their_names(precision: str) -> None:
    before = onnx.load_model_from_string(exported(None)).graph
    after = onnx.load_model_from_string(_lowered(precision)).graph
    for old, new in zip(
        [*before.input, *before.output], [*after.input, *after.output], strict=True
    ):
        assert old.name == new.name
        assert new.type.tensor_type.elem_type == TensorProto.FLOAT
        assert old.type == new.type


@pytest.mark.parametrize("precision", HALVES)
def test_every_weight_is_stored_once_and_short(precision: str) -> None:
    before = onnx.load_model_from_string(exported(None)).graph.initializer
    after = onnx.load_model_from_string(_lowered(precision)).graph.initializer
    assert len(after) == len(before)
    kinds = {w.name.removesuffix("/low"): w.data_type for w in after}
    low = int(HALVES[precision])
    network = [w.name for w in before if w.name.endswith((".weight", ".bias"))]
    assert {kinds[name] for name in network if not name.startswith("network/stem")} == {low}
    assert {kinds[name] for name in network if name.startswith("network/stem")} == {
        TensorProto.FLOAT
    }


@pytest.mark.parametrize("precision", HALVES)
def test_the_graph_passes_the_checker_in_an_operator_set_that_has_its_types(precision: str) -> None:
    model = onnx.load_model_from_string(_lowered(precision))
    onnx.checker.check_model(model, full_check=True)
    low, version = HALVES[precision], model.opset_import[0].version
    if low == ir.DataType.BFLOAT16:
        assert version == BFLOAT16_OPSET
    for node in model.graph.node:
        if node.op_type == "Conv":
            schema = onnx.defs.get_schema("Conv", version)
            allowed = schema.type_constraints[0].allowed_type_strs
            assert f"tensor({'float16' if precision == 'fp16' else 'bfloat16'})" in allowed


def _runner(precision: str) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(_lowered(precision), threads=1, precision=precision)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", HALVES)
def test_results_differ_by_some_steps_of_the_type_and_not_by_none(precision: str) -> None:
    full = OnnxRuntimeRunner(exported(None), threads=1).run({"image": IMAGES})
    low = _runner(precision).run({"image": IMAGES})
    for name, value in full.items():
        error = np.abs(low[name] - value).max() / np.abs(value).max()
        if name == "tap.stem":  # of the first product
            assert error == 0
        else:
            assert STEP[precision] / 16 < error < STEP[precision] * 4, name


def test_a_value_between_two_products_is_rounded() -> None:
    # The runner's own kernels would hand it on in float32.
    taps = _runner("bf16").run({"image": IMAGES})
    for name in ("tap.mid", "tap.tip"):
        assert not (taps[name].view(np.uint32) & 0xFFFF).any(), name


def test_what_a_region_is_made_of() -> None:
    graph = fresh(exported(None)).graph
    region = Counter(node.op_type for node in low_region(graph))
    rest = Counter(node.op_type for node in graph) - region
    assert region == {"Conv": 4, "Relu": 3}
    # Normalisation in front of the first product, upsampling behind the last one.
    assert {"Sub", "Div", "Resize"} <= rest.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_detectors_products_are_low_and_its_coordinates_are_not(kind: str) -> None:
    graph = fresh(exported_detector(kind)).graph
    region = low_region(graph)
    assert {n for n in graph if n.op_type in PRODUCTS} <= region
    first = [node.name for node in first_products(graph)]
    assert first == ["network/plain.network.backbone.near.0/Conv"]
    coordinates = {"GreedyKeep", "TopK", "GridSample", "Exp", "GatherElements", "Softmax", "Gather"}
    assert not {node.op_type for node in region} & coordinates
    lower_types(model := fresh(exported_detector(kind)), "fp16")
    for node in model.graph:
        if node.op_type in coordinates:
            floats = {v.dtype for v in node.inputs if v is not None and v.dtype is not None}
            assert ir.DataType.FLOAT16 not in floats, node.name


def test_a_carrier_that_reads_something_of_float32_stays() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[1, 2, 4, 4] image) => (float[1, 2, 4, 4] out)
    <float[2, 2, 1, 1] w = {1, 0, 0, 1}>
    {
        first = Conv (image, w)
        scaled = Mul (first, first)
        exact = Sqrt (first)
        mixed = Add (scaled, exact)
        out = Conv (mixed, w)
    }
    """
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    low = low_region(ir.serde.deserialize_model(model).graph)
    assert {node.op_type for node in low} == {"Conv"}


def test_every_product_that_reads_the_image_is_a_first_one() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[1, 2, 4, 4] image) => (float[1, 2, 4, 4] out)
    <float[2, 2, 1, 1] w = {1, 0, 0, 1}>
    {
        half = Sqrt (image)
        one = Conv (image, w)
        other = Conv (half, w)
        behind = Conv (one, w)
        both = Add (behind, other)
        out = Conv (both, w)
    }
    """
    model = ir.serde.deserialize_model(
        onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    )
    assert {node.outputs[0].name for node in first_products(model.graph)} == {"one", "other"}
    lower(model, "fp16", [])
    names = [node.name or "" for node in model.graph if node.op_type == "Conv"]
    assert [name.endswith(KEPT) for name in names] == [True, True, False, False]


def test_the_cheapest_ways_to_taps_stay_as_far_as_the_share_goes() -> None:
    graph = fresh(exported(None)).graph

    # 0.20 of the multiplications lead to the first tap, 0.73 to the second, almost all to the third.
    def kept(share: float) -> list[str]:
        return sorted((node.name or "").split("/")[1] for node in products_to_taps(graph, share))

    assert kept(0.0) == kept(SHARES["bf16"]) == []
    assert kept(0.3) == ["stem.0"]
    assert kept(0.75) == ["mid.0", "stem.0"]
    assert kept(1.0) == ["mid.0", "stem.0", "tip"]


def test_what_is_named_to_stay_keeps_its_neighbourhood() -> None:
    model = fresh(exported(None))
    name_kept(products_to_taps(model.graph, 0.75))
    assert Counter(n.op_type for n in low_region(model.graph)) == {"Conv": 2, "Relu": 1}


def test_a_weight_that_float16_cannot_hold_is_refused() -> None:
    model = fresh(exported(None))
    weight = next(v for v in model.graph.initializers.values() if "tip.weight" in (v.name or ""))
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1e9), name=weight.name)
    with pytest.raises(CompileError, match="too large for float16") as caught:
        lower_types(model, "fp16")
    assert str(weight.name) in caught.value.what
    assert "bf16" in caught.value.fix


def test_two_lowerings_give_the_same_bytes() -> None:
    one, other = fresh(exported(None)), fresh(exported(None))
    lower_types(one, "fp16")
    lower_types(other, "fp16")
    assert to_bytes(one) == to_bytes(other)

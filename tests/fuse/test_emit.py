from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.fuse.graphs import (
    BARE,
    IMAGES,
    PARTS,
    POLICIES,
    check_equal,
    every_node,
    fused,
    mixed,
    run,
)
from tests.small import (
    PREPROCESS,
    SIZE,
    exported,
    fresh,
    random_calibration,
    reference,
    split_flags,
    to_bytes,
)
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.errors import CalibrationError, ShapeError
from zmask_export.export.bare import OPSET, export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import DefenseSpec, Policy, Registration


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("registration", ["paper", "aligned"])
@pytest.mark.parametrize("policy", POLICIES)
def test_graph_equals_the_literal_reference(
    policy: Policy, registration: Registration, batch: int | None
) -> None:
    calibration = mixed(registration)
    threshold = calibration.header.threshold or 0.0
    model = fused(FuseOptions(policy), calibration, batch)
    expected = reference(BARE, calibration, policy, torch.from_numpy(IMAGES))
    assert 0 < expected["flag"].sum() < len(IMAGES)
    for size in (1, 4) if batch is None else (batch,):
        for start in range(0, len(IMAGES), size):
            got = run(model, IMAGES[start : start + size], threshold)
            check_equal(got, {k: v[start : start + size] for k, v in expected.items()})


@pytest.mark.parametrize("policy", [Policy.MASK, Policy.GATED])
def test_covered_pixels_take_the_mean_colour(policy: Policy) -> None:
    calibration = mixed(fill="mean")
    expected = reference(BARE, calibration, policy, torch.from_numpy(IMAGES))
    black = reference(BARE, mixed(fill="black"), policy, torch.from_numpy(IMAGES))
    assert np.abs(expected["logits"] - black["logits"]).max() > 1e-3
    model = fused(FuseOptions(policy), calibration)
    check_equal(run(model, IMAGES, calibration.header.threshold or 0.0), expected)


@pytest.mark.parametrize("corners", [1, 3, 40])
def test_corners_are_filled(corners: int) -> None:
    calibration = mixed(corners=corners)
    expected = reference(BARE, calibration, Policy.GATED, torch.from_numpy(IMAGES))
    plain = reference(BARE, mixed(), Policy.GATED, torch.from_numpy(IMAGES))
    assert (expected["mask"] <= plain["mask"]).all()
    assert (expected["mask"] < plain["mask"]).any()
    model = fused(FuseOptions(Policy.GATED), calibration)
    check_equal(run(model, IMAGES, calibration.header.threshold or 0.0), expected)


def test_threshold_is_an_input() -> None:
    model = fused(FuseOptions(Policy.GATED))
    assert not run(model, IMAGES, 1e9)["flag"].any()
    assert run(model, IMAGES, 0.0)["flag"].all()
    d = run(model, IMAGES, 0.0)["score"]
    exact = run(model, IMAGES, float(d[2]))
    np.testing.assert_array_equal(exact["flag"], d > d[2])


def test_shut_gate_gives_the_bare_prediction() -> None:
    bare = OnnxRuntimeRunner(exported(None), threads=1).run({"image": IMAGES})
    got = run(fused(FuseOptions(Policy.GATED)), IMAGES, 1e9)
    np.testing.assert_allclose(got["logits"], bare["logits"], rtol=0, atol=1e-6)
    assert (got["mask"] == 1).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_nan_pixel_raises_the_flag_of_its_image_alone(policy: Policy) -> None:
    calibration = mixed()
    threshold = calibration.header.threshold or 0.0
    model = fused(FuseOptions(policy), calibration)
    clean = run(model, IMAGES, threshold)
    broken = IMAGES.copy()
    broken[0, 1, 5, 5] = np.nan
    got = run(model, broken, threshold)
    assert got["flag"][0]
    check_equal({k: v[1:] for k, v in got.items()}, {k: v[1:] for k, v in clean.items()})


def test_dead_activations_give_a_zero_score() -> None:
    calibration = mixed()
    dead = {tap: np.zeros_like(std) for tap, std in calibration.std.items()}
    model = fused(FuseOptions(Policy.DETECT), replace(calibration, std=dead))
    got = run(model, IMAGES, 0.0)
    assert (got["heatmap_shallow"] == 0).all()
    assert (got["score"] == 0).all()
    assert not got["flag"].any()


@pytest.mark.parametrize("policy", POLICIES)
def test_raw_taps_are_the_activations(policy: Policy) -> None:
    calibration = mixed()
    model = fused(FuseOptions(policy, raw_taps=True), calibration)
    got = run(model, IMAGES, calibration.header.threshold or 0.0)
    with torch.inference_mode():
        _, taps = BARE(torch.from_numpy(IMAGES))
    expected = reference(BARE, calibration, policy, torch.from_numpy(IMAGES))
    check_equal(got, expected | {f"tap.{tap}": value.numpy() for tap, value in taps.items()})


class Straight(nn.Sequential):
    """A network whose last layer is tapped, so that the first pass has nothing left to do."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1))


@pytest.mark.parametrize("policy", POLICIES)
def test_tap_that_is_the_output(policy: Policy) -> None:
    torch.manual_seed(4)
    bare = BareNetwork(Straight(), PREPROCESS, {"first": "0", "last": "2"})
    defense = DefenseSpec(
        shallow=("first",),
        deep=("last",),
        shallow_kernels=((3, 4),),
        deep_kernels=((6, 8), (2, 2)),
        grid=(10, 12),
    )
    calibration = random_calibration(bare, defense)
    calibration = split_flags(bare, calibration, torch.from_numpy(IMAGES))
    model = fuse(export_bare(bare, SIZE), calibration, FuseOptions(policy)).to_bytes()
    expected = reference(bare, calibration, policy, torch.from_numpy(IMAGES))
    check_equal(run(model, IMAGES, calibration.header.threshold or 0.0), expected)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("batch", [None, 1])
def test_graph_is_well_formed_and_named(policy: Policy, batch: int | None) -> None:
    data = fused(FuseOptions(policy, raw_taps=True), batch=batch)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert {o.domain: o.version for o in model.opset_import}[""] == OPSET
    assert [value.name for value in model.graph.input] == ["image", "threshold"]
    names = [node.name for node in every_node(model.graph)]
    assert len(set(names)) == len(names)
    assert [name for name in names if not name.startswith(PARTS)] == []
    assert ("If" in {n.op_type for n in model.graph.node}) == (policy is Policy.GATED)
    for trace in (Path(__file__).parents[2], Path(torch.__file__).parent):
        assert bytes(trace) not in data
    assert b"stack_trace" not in data
    assert b'File "' not in data


@pytest.mark.parametrize("policy", POLICIES)
def test_constants_and_weights_are_stored_once(policy: Policy) -> None:
    graph = onnx.load_from_string(fused(FuseOptions(policy))).graph
    for node in every_node(graph):
        for attribute in node.attribute:
            assert not attribute.g.initializer
    large = [
        (value.data_type, tuple(value.dims), onnx.numpy_helper.to_array(value).tobytes())
        for value in graph.initializer
        if np.prod(value.dims) > 8
    ]
    assert len(set(large)) == len(large)


def test_second_pass_adds_no_weights() -> None:
    def weights(model: bytes) -> int:
        graph = onnx.load_from_string(model).graph
        return sum(onnx.numpy_helper.to_array(value).nbytes for value in graph.initializer)

    detect = weights(fused(FuseOptions(Policy.DETECT)))
    assert detect > weights(exported(None))
    assert weights(fused(FuseOptions(Policy.GATED))) <= detect + 64
    assert weights(fused(FuseOptions(Policy.MASK))) <= detect + 64


@pytest.mark.parametrize("policy", POLICIES)
def test_fusing_twice_gives_the_same_bytes(policy: Policy) -> None:
    assert fused(FuseOptions(policy)) == fused(FuseOptions(policy))


def test_outputs_declare_shape_and_type() -> None:
    graph = onnx.load_from_string(fused(FuseOptions(Policy.GATED), batch=4)).graph
    declared = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in graph.output
    }
    assert declared["mask"] == [4, 1, *SIZE]
    assert declared["score"] == declared["flag"] == [4]
    assert declared["heatmap_deep"] == declared["heatmap.deep.tip"] == [4, 1, 12, 17]
    types = {value.name: value.type.tensor_type.elem_type for value in graph.output}
    assert types.pop("flag") == onnx.TensorProto.BOOL
    assert set(types.values()) == {onnx.TensorProto.FLOAT}


def test_unfitted_calibration_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no fitted fusion block"):
        fused(FuseOptions(), mixed().with_header(threshold=None))


def test_wrong_channel_count_is_refused() -> None:
    calibration = mixed()
    mean = calibration.mean | {"mid": np.zeros(31, np.float32)}
    with pytest.raises(ShapeError, match="mid has 32 channels and the calibration 31"):
        fused(FuseOptions(), replace(calibration, mean=mean))


def test_wrong_input_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="exported for"):
        fused(FuseOptions(), mixed().with_header(input_size=(64, 48)))


def test_tap_that_the_graph_lacks_is_refused() -> None:
    model = fresh(exported(None))
    outputs = [value for value in model.graph.outputs if value.name != "tap.tip"]
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    with pytest.raises(ShapeError, match="tip"):
        fuse(fresh(to_bytes(model)), mixed(), FuseOptions())

"""Numbers that outgrow their type between image and score: the flag goes up."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
import torch

from tests.numerics.networks import IMAGES, Subject, made, named
from tests.small import SIZE, to_bytes
from zmask_export.export.bare import export_bare
from zmask_export.spec import Policy, Precision


@functools.cache
def _louder(factor: float) -> Subject:
    """The ReLU network whose second product gives ``factor`` times as much, calibrated as it was."""
    own = made("ReLU")
    with torch.no_grad():
        own.bare.network[2].weight.mul_(factor)
    return Subject(own.bare, own.calibration, to_bytes(export_bare(own.bare, SIZE)))


@pytest.mark.parametrize("policy", list(Policy))
def test_float16_overflow_in_a_tap_raises_the_flag(policy: Policy) -> None:
    loud = _louder(3e5)
    expected = loud.reference(IMAGES, policy)
    assert np.isfinite(expected["score"]).all()
    full = loud.run(loud.runner(policy), IMAGES)
    low = loud.run(loud.runner(policy, "fp16"), IMAGES)
    assert full["flag"].all()
    assert low["flag"].all()
    assert not np.isfinite(low["score"]).any()
    # bfloat16 has float32's range.
    assert np.isfinite(loud.run(loud.runner(policy, "bf16"), IMAGES)["score"]).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float32_overflow_in_the_cascade_raises_the_flag(precision: Precision) -> None:
    loud = _louder(1e30)
    for policy in Policy:
        got = loud.run(loud.runner(policy, precision), IMAGES)
        assert got["flag"].all()
        np.testing.assert_array_equal(got["flag"], loud.reference(IMAGES, policy)["flag"])


def test_one_tap_of_several_that_overflows_is_enough() -> None:
    loud = _louder(float("inf"))
    got = loud.run(loud.runner(Policy.GATED), IMAGES)
    assert np.isfinite(got["heatmap_shallow"]).all()
    assert not np.isfinite(got["heatmap_deep"]).all()
    assert got["flag"].all()
    assert (got["mask"] == 1).all()


def test_the_graph_itself_says_when_an_image_is_no_number() -> None:
    """What a network keeps from its taps is seen at the image: the comparison is in the file."""
    graph = onnx.load_from_string(named("ReLU").model(Policy.DETECT)).graph
    (size,) = [
        node for node in graph.node if list(node.input) == ["image"] and node.op_type == "Abs"
    ]
    (check,) = [node for node in graph.node if size.output[0] in node.input]
    assert check.op_type == "ReduceSum"
    (after,) = [node for node in graph.node if check.output[0] in node.input]
    assert after.op_type == "LessOrEqual"

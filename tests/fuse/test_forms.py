"""Every form of a cascade, as a graph."""

from __future__ import annotations

import onnx
import pytest
import torch

from tests.fuse.graphs import BARE, IMAGES, check_equal, every_node, fused, mixed, run
from tests.small import random_calibration, reference, tiny_defense
from zmask_export.fuse.emit import FuseOptions
from zmask_export.fuse.plan import Axis, Lowering
from zmask_export.spec import Policy


@pytest.mark.parametrize("block", [None, 4, 16])
@pytest.mark.parametrize("strips", [1, 3])
@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_every_form_agrees_with_the_reference(
    axis: Axis, resized: bool, strips: int, block: int | None
) -> None:
    policy = Policy.GATED
    calibration = mixed("paper")
    model = fused(FuseOptions(policy, form=Lowering(axis, strips, resized, block)), calibration)
    loops = [n for n in every_node(onnx.load_from_string(model).graph) if n.op_type == "Loop"]
    assert len(loops) == {None: 0, 4: 3, 16: 1}[block]
    expected = reference(BARE, calibration, policy, torch.from_numpy(IMAGES))
    check_equal(run(model, IMAGES, calibration.header.threshold or 0.0), expected)


@pytest.mark.parametrize("block", [None, 16])
def test_single_stage_cascades(block: int | None) -> None:
    defense = tiny_defense().model_copy(
        update={"shallow_kernels": ((4, 5),), "deep_kernels": ((12, 17),)}
    )
    calibration = random_calibration(BARE, defense, threshold=0.5)
    form = Lowering("rows", 1, False, block)
    model = fused(FuseOptions(Policy.DETECT, form=form), calibration)
    expected = reference(BARE, calibration, Policy.DETECT, torch.from_numpy(IMAGES))
    check_equal(run(model, IMAGES, 0.5), expected)

"""Detectors with Z-Mask around them: every kind, every policy, against the literal reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from tests.attack.detectors import DEFENSE, KINDS, PATHS, PREPROCESS, SIZE, STEPS, picture, taught
from tests.conftest import Make
from tests.small import random_calibration, split_flags
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.tensorrt import available, compile_engine
from zmask_export.data.images import to_float
from zmask_export.defense.zmask import ZMask
from zmask_export.export.bare import export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.models.detection.limits import apply_limits
from zmask_export.models.detection.network import DetectorNetwork, PlainDetector
from zmask_export.presets import find
from zmask_export.spec import DetectorLimits, Policy
from zmask_export.verify.parity import verify

LIMITS = find("camvid-retinanet").preset.tolerances["fp32"]


FAINT = -4.0
"""Bias of the second soft threshold, b3."""


def _images() -> list[NDArray[np.uint8]]:
    """Rectangles; every second one carries a patch of noise."""
    images = [picture(seed, 2).image for seed in range(4)]
    rng = np.random.default_rng(0)
    for image in images[1::2]:
        image[20:44, 30:54] = rng.integers(0, 2, (24, 24, 3)) * 255
    return images


class Case:
    """A detector of one kind that finds rectangles, with a calibration that splits the images."""

    def __init__(self, kind: str, make_once: Make) -> None:
        self.kind = kind
        network = taught(kind, STEPS[kind], make_once)
        # Under it lie exact ties, which a covered rectangle gives: rounding decides among them.
        apply_limits(network, DetectorLimits(score_threshold=0.3))
        self.bare = DetectorNetwork(network, PREPROCESS, dict(PATHS))
        calibration = random_calibration(self.bare, DEFENSE, size=SIZE)
        # A mask that leaves most of an image: a covered one holds nothing but ties.
        assert calibration.fusion is not None
        calibration.fusion[5] = FAINT
        pixels = torch.from_numpy(to_float(_images()))
        self.calibration = split_flags(self.bare, calibration, pixels)

    def model(self, policy: Policy, batch: int | None = None) -> bytes:
        exported = export_bare(PlainDetector(self.bare, SIZE), SIZE, batch)
        return fuse(exported, self.calibration, FuseOptions(policy)).to_bytes()


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, make_once: Make) -> Case:
    return Case(request.param, make_once)


@pytest.fixture(scope="module")
def gated(case: Case) -> bytes:
    return case.model(Policy.GATED)


@pytest.mark.parametrize("policy", list(Policy))
def test_a_protected_detector_is_its_reference(case: Case, gated: bytes, policy: Policy) -> None:
    reference = ZMask(case.bare, case.calibration, policy)
    named = [(str(index), image) for index, image in enumerate(_images())]
    model = gated if policy is Policy.GATED else case.model(policy)
    runner = OnnxRuntimeRunner(model, threads=1)
    report = verify(reference, runner, named, LIMITS, batches=(1, 3))
    assert report.problems == []
    assert {c.flag for c in report.comparisons} == {False, True}
    found = runner.run(
        {"image": to_float(_images()), "threshold": np.array([report.threshold], np.float32)}
    )
    assert found["count"].any()


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def test_what_follows_a_suppression_stands_behind_the_gate(case: Case, gated: bytes) -> None:
    model = onnx.load_model_from_string(gated)
    (gate,) = (node for node in model.graph.node if node.op_type == "If")
    inside = [node for branch in gate.attribute for node in _nodes(branch.g)]
    assert not any(node.op_type == "Loop" for node in inside)
    outside = [node.name for node in model.graph.node]
    assert any(name.startswith("suppression/") for name in outside)
    if case.kind == "fasterrcnn":
        # The second stage runs once, whatever the gate says.
        assert sum("roi_heads.box_head.fc6" in name for name in outside) == 1
        assert not any("roi_heads" in node.name for node in inside)


@pytest.mark.skipif(available("tensorrt-rtx") is not None, reason="no tensorrt-rtx here")
@pytest.mark.slow
@pytest.mark.parametrize("case", ["fasterrcnn"], indirect=True)
@pytest.mark.parametrize("policy", list(Policy))
def test_a_two_stage_detector_compiles(case: Case, policy: Policy) -> None:
    engine = compile_engine(case.model(policy, 1), "tensorrt-rtx", batch=None)
    assert engine.data
    assert engine.activation_bytes

"""Detectors that are asked for what they cannot do, and weights of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import assert_refused, contents, zmask
from zmask_export import presets

DETECTOR = ["build", "--model", "camvid-retinanet", "--target", "onnx"]
CHEAP = ["build", "--model", "camvid-retinanet", "--random-weights", "--target", "onnx"]

LIMITS = {
    "more detections than a target sorts": (["--detections", "4000"], "more than the 3840"),
    "more candidates than a target sorts": (["--box-candidates", "4000"], "more than the 3840"),
    "no detection": (["--detections", "0"], "--detections is 0"),
    "fewer candidates than none": (["--box-candidates", "-1"], "--box-candidates is -1"),
    "a score above 1": (["--score-threshold", "1.5"], "--score-threshold is 1.5"),
    "a score that is no number": (["--score-threshold", "nan"], "--score-threshold is nan"),
    "an overlap below 0": (["--iou-threshold", "-0.1"], "--iou-threshold is -0.1"),
    "an image smaller than the largest stride": (["--input-size", "20x480"], "too small"),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_detector_that_makes_no_sense(case: str, out: Path) -> None:
    options, word = LIMITS[case]
    assert_refused(zmask(*CHEAP, *options, "--out", out), 2, word)
    assert contents(out.parent) == []


def test_limits_are_for_detectors(out: Path) -> None:
    outcome = zmask("build", "--model", "icnet", "--detections", "5", "--out", out)
    assert_refused(outcome, 2, "no detector")


def test_a_smallest_input_is_the_largest_stride(out: Path) -> None:
    for name, side in (("ssd300", 64), ("retinanet", 128), ("fasterrcnn", 64)):
        size = f"{side - 1}x{side}"
        options = ("--model", name, "--random-weights", "--input-size", size, "--out", out)
        assert_refused(zmask("build", *options), 2, "too small")


State = dict[str, Tensor]


def _other_anchors(state: State) -> None:
    for part in ("weight", "bias"):
        key = f"head.classification_head.cls_logits.{part}"
        state[key] = state[key][:-1]


def _background_alone(state: State) -> None:
    for part in ("weight", "bias"):
        key = f"head.classification_head.cls_logits.{part}"
        state[key] = state[key][:9]


def _halved(state: State) -> None:
    key = "head.classification_head.cls_logits.weight"
    state[key] = torch.cat([state[key], state[key][:9]])


def _no_head(state: State) -> None:
    for key in [key for key in state if key.startswith("head.regression_head")]:
        del state[key]


DAMAGE: dict[str, tuple[Callable[[State], None], str]] = {
    "anchors that are not its own": (_other_anchors, "9 for every class"),
    "no class but the background": (_background_alone, "nothing to find"),
    "heads of different numbers of classes": (_halved, "wrong shape"),
    "half of a head": (_no_head, "missing"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_weights_of_another_detector(case: str, out: Path, tmp_path: Path) -> None:
    damage, word = DAMAGE[case]
    state = load_file(presets.folder() / "camvid-retinanet" / "weights.safetensors")
    damage(state)
    path = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    assert_refused(zmask(*DETECTOR, "--weights", path, "--out", out), 4, word)


def test_torchvision_publishes_no_demo(out: Path) -> None:
    outcome = zmask(*DETECTOR, "--weights", "torchvision", "--out", out)
    assert_refused(outcome, 4, "publishes no weights of camvid-retinanet")

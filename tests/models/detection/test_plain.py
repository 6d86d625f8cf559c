"""The plain form of every kind of detector against torchvision's own forward pass, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.ops import MultiScaleRoIAlign

from tests.attack.detectors import KINDS, PREPROCESS, SIZE, bare, detector
from zmask_export.errors import CompileError, UsageError
from zmask_export.models.detection.limits import apply_limits, most_detections
from zmask_export.models.detection.network import DetectorNetwork, PlainDetector
from zmask_export.models.detection.ranking import TOP_K_LIMIT, descending
from zmask_export.spec import DetectorLimits, Size

each = pytest.mark.parametrize("kind", KINDS)


def _images(count: int, size: Size, seed: int = 0) -> Tensor:
    """Coarse and fine noise in turn."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    fine = torch.rand(count, 3, *size, generator=generator)
    return 0.7 * F.interpolate(coarse, size, mode="bilinear") + 0.3 * fine


def _lively(kind: str, seed: int) -> nn.Module:
    """Random weights whose heads say something, in float64, where rounding decides no order.

    Equal scores would: heads that saturate give them, and box heads that are dead.
    """
    network = detector(kind, seed).double()
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.named_parameters():
        if name.endswith("weight") and any(part in name for part in ("cls", "classification")):
            value.data.normal_(0, 0.05 if kind == "retinanet" else 0.3, generator=generator)
        elif "box_head" in name and name.endswith("bias"):
            value.data.fill_(0.5)
    return network


def _compare(network: nn.Module, size: Size, images: Tensor) -> int:
    reference = DetectorNetwork(network, PREPROCESS, {})
    plain = PlainDetector(reference, size).double()
    with torch.inference_mode():
        expected, found = reference.predict(images), plain.predict(images)
    torch.testing.assert_close(found["count"], expected["count"])
    torch.testing.assert_close(found["labels"], expected["labels"])
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-9, rtol=0)
    # torchvision takes its resize ratios in float32.
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=1e-4, rtol=0)
    return int(expected["count"].sum())


@each
@pytest.mark.parametrize("seed", range(4))
def test_it_finds_what_torchvision_finds(kind: str, seed: int) -> None:
    assert _compare(_lively(kind, seed), SIZE, _images(4, SIZE, seed).double()) > 20


@each
@pytest.mark.parametrize("size", [(48, 60), (100, 90), (65, 131)])
def test_other_sizes_are_resized_and_padded_alike(kind: str, size: Size) -> None:
    assert _compare(_lively(kind, 1), size, _images(2, size).double()) > 5


@each
def test_limits_are_those_of_both(kind: str) -> None:
    network = _lively(kind, 2)
    limits = DetectorLimits(detections=7, candidates=30, score_threshold=0.06, iou_threshold=0.3)
    apply_limits(network, limits)
    assert most_detections(network) == 7
    found = _compare(network, SIZE, _images(3, SIZE).double())
    assert 0 < found <= 21


@each
def test_where_nothing_is_found_all_rows_are_zero(kind: str) -> None:
    network = _lively(kind, 0)
    apply_limits(network, DetectorLimits(score_threshold=1.0))
    reference = DetectorNetwork(network, PREPROCESS, {})
    with torch.inference_mode():
        found = PlainDetector(reference, SIZE).double().predict(_images(2, SIZE).double())
    assert not found["count"].any()
    assert all(not value.any() for value in found.values())


@each
def test_an_image_does_not_touch_its_neighbour(kind: str) -> None:
    plain = PlainDetector(DetectorNetwork(_lively(kind, 3), PREPROCESS, {}), SIZE).double()
    images = _images(3, SIZE).double()
    with torch.inference_mode():
        together = plain.predict(images)
        alone = [plain.predict(image[None]) for image in images]
    for name, values in together.items():
        torch.testing.assert_close(
            values, torch.cat([one[name] for one in alone]), rtol=0, atol=1e-9
        )


@each
def test_an_image_of_no_number_finds_nothing_and_does_not_fail(kind: str) -> None:
    plain = PlainDetector(bare(kind), SIZE)
    with torch.inference_mode():
        found = plain.predict(torch.full((1, 3, *SIZE), float("nan")))
    assert not found["count"].any()


@pytest.mark.parametrize("kind", ["retinanet", "ssd"])
def test_more_candidates_than_a_target_sorts_are_refused(kind: str) -> None:
    network = detector(kind)
    with pytest.raises(UsageError, match="more than the 3840"):
        apply_limits(network, DetectorLimits(candidates=TOP_K_LIMIT + 1))
    network.topk_candidates = TOP_K_LIMIT + 1
    with pytest.raises(UsageError, match="more than the 3840"):
        PlainDetector(DetectorNetwork(network, PREPROCESS, {}), SIZE)


def test_a_two_stage_detector_refuses_them_too() -> None:
    network = detector("fasterrcnn")
    network.rpn._post_nms_top_n["testing"] = TOP_K_LIMIT + 1
    with pytest.raises(UsageError, match="proposals"):
        PlainDetector(DetectorNetwork(network, PREPROCESS, {}), SIZE)


def test_a_roi_align_without_fixed_samples_is_refused() -> None:
    network = detector("fasterrcnn")
    assert isinstance(network, FasterRCNN)
    network.roi_heads.box_roi_pool = MultiScaleRoIAlign(["0", "1"], 3, 0)
    with pytest.raises(CompileError, match="sampling_ratio"):
        PlainDetector(DetectorNetwork(network, PREPROCESS, {}), SIZE)


def test_another_kind_of_detector_is_refused() -> None:
    network = copy.deepcopy(detector("retinanet"))
    network.__class__ = type("Other", (nn.Module,), {})
    assert not isinstance(network, (RetinaNet, MaskRCNN))
    with pytest.raises(CompileError, match="no plain form of a Other"):
        PlainDetector(DetectorNetwork(network, PREPROCESS, {}), SIZE)


def test_many_scores_are_sorted_by_two_top_k() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, TOP_K_LIMIT + 700, generator=generator)
    order = descending(scores)
    assert all(len(row.unique()) == scores.shape[1] for row in order)
    torch.testing.assert_close(scores.gather(1, order), scores.sort(dim=1, descending=True).values)
    with pytest.raises(UsageError, match="in all"):
        descending(torch.zeros(1, 2 * TOP_K_LIMIT + 1))

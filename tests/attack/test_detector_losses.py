from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.attack.detectors import CLASSES, KINDS, LOSSES, SIZE, detector, picture
from zmask_export.attack.detector_losses import (
    BOX_LOSSES,
    CLASS_LOSSES,
    Target,
    detector_losses,
)


def _batch(dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[Target]]:
    """Three pictures, the last without an object."""
    samples = [picture(0), picture(1), picture(2, count=0)]
    images = [torch.from_numpy(s.image).permute(2, 0, 1).to(dtype) / 255 for s in samples]
    return images, [
        {"boxes": torch.from_numpy(s.boxes), "labels": torch.from_numpy(s.labels)} for s in samples
    ]


def _iou(a: list[float], b: list[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (areas - w * h)


def _match(anchors: list[list[float]], boxes: list[list[float]]) -> list[int]:
    """Index of each anchor's box: from 0.5 on, or a box's best; -1 below 0.4, else -2."""
    if not boxes:
        return [-1] * len(anchors)
    table = [[_iou(anchor, box) for box in boxes] for anchor in anchors]
    best = [max(row[k] for row in table) for k in range(len(boxes))]
    matches = []
    for row in table:
        k = row.index(max(row))
        first_of_some = any(row[j] == best[j] for j in range(len(boxes)))
        matches.append(k if row[k] >= 0.5 or first_of_some else -1 if row[k] < 0.4 else -2)
    return matches


def _focal(logit: float, positive: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    if positive:
        return -0.25 * (1 - p) ** 2 * math.log(p)
    return -0.75 * p**2 * math.log(1 - p)


def _offsets(anchor: list[float], box: list[float]) -> list[float]:
    (ax, ay, aw, ah), (bx, by, bw, bh) = (
        ((v[0] + v[2]) / 2, (v[1] + v[3]) / 2, v[2] - v[0], v[3] - v[1]) for v in (anchor, box)
    )
    return [(bx - ax) / aw, (by - ay) / ah, math.log(bw / aw), math.log(bh / ah)]


def test_retinanet_s_losses_are_those_of_the_definition() -> None:
    network = detector("retinanet")
    images, targets = _batch()
    with torch.inference_mode():
        shaped, _ = network.transform(images)
        assert shaped.tensors.shape[2:] == (64, 96)  # not resized, padded to a multiple of 32
        maps = list(network.backbone(shaped.tensors).values())
        outputs = network.head(maps)
        anchors = network.anchor_generator(shaped, maps)[0].tolist()
        found = detector_losses(network, images, targets, 0)
    for_class, for_boxes = [], []
    for k, target in enumerate(targets):
        boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
        matches = _match(anchors, boxes)
        positive = max(sum(m >= 0 for m in matches), 1)
        logits, offsets = (outputs[n][k].tolist() for n in ("cls_logits", "bbox_regression"))
        focal = l1 = 0.0
        for anchor, m, scores, offset in zip(anchors, matches, logits, offsets, strict=True):
            if m == -2:
                continue
            focal += sum(_focal(scores[c], m >= 0 and labels[m] == c) for c in range(CLASSES))
            if m >= 0:
                wanted = _offsets(anchor, boxes[m])
                l1 += sum(abs(a - b) for a, b in zip(offset, wanted, strict=True))
        for_class.append(focal / positive)
        for_boxes.append(l1 / positive)
    assert float(found["classification"]) == pytest.approx(np.mean(for_class), rel=1e-4)
    assert float(found["bbox_regression"]) == pytest.approx(np.mean(for_boxes), rel=1e-4)
    assert for_boxes[2] == 0 < for_class[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_detector_gives_its_losses(kind: str) -> None:
    with torch.inference_mode():
        losses = detector_losses(detector(kind), *_batch(), 0)
    assert set(losses) == LOSSES[kind]
    assert set(losses) <= {*CLASS_LOSSES, *BOX_LOSSES}
    for loss in losses.values():
        assert loss.shape == ()
        assert loss > 0


def _slopes(
    losses_at: Callable[[Tensor], dict[str, Tensor]], patch: Tensor, names: set[str]
) -> dict[str, tuple[float, float]]:
    """Slope of each loss along its gradient: by differentiation, and by differences."""
    slopes = {}
    losses = losses_at(patch)
    for name in names:
        (gradient,) = torch.autograd.grad(losses[name], patch, retain_graph=True)
        length = float(gradient.norm())
        # torchvision's labels of proposals, and so that loss, are float32 whatever the network is.
        size = 1e-5 if losses[name].dtype == torch.double else 0.1
        step = size * gradient / length
        with torch.no_grad():
            ahead, behind = losses_at(patch + step)[name], losses_at(patch - step)[name]
        slopes[name] = (length, float(ahead - behind) / (2 * size))
    return slopes


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_patch_are_those_of_finite_differences(kind: str) -> None:
    network = detector(kind).double()
    images, targets = _batch(torch.double)
    images, targets = images[:2], targets[:2]
    targets = [{**t, "boxes": t["boxes"].double()} for t in targets]
    patch = torch.rand(3, 18, 20, dtype=torch.double, generator=torch.Generator().manual_seed(1))

    def losses_at(patch: Tensor) -> dict[str, Tensor]:
        attacked = [image.clone() for image in images]
        for k, image in enumerate(attacked):
            image[:, 10 + 5 * k : 28 + 5 * k, 30:50] = patch
        return detector_losses(network, attacked, targets, 3)

    # A two-stage detector's heads see proposals, which torchvision takes for constants.
    names = LOSSES[kind] - {"loss_classifier", "loss_box_reg"}
    slopes = _slopes(losses_at, patch.requires_grad_(True), names)
    assert slopes
    for name, (slope, difference) in slopes.items():
        coarse = name == "loss_objectness"
        assert difference == pytest.approx(slope, rel=0.03 if coarse else 1e-4), name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_detector_changes(kind: str) -> None:
    network = detector(kind)
    network.backbone.drop.train()  # as it comes, so it stays
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    training = [module.training for module in network.modules()]
    random = torch.get_rng_state()
    detector_losses(network, *_batch(), 0)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_loss_that_cannot_be_had_leaves_the_detector_as_it_was() -> None:
    network = detector("fasterrcnn")
    images, targets = _batch()
    targets[0]["boxes"] = targets[0]["boxes"][:, [2, 3, 0, 1]]
    with pytest.raises(AssertionError, match="positive height and width"):
        detector_losses(network, images, targets, 0)
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_layers_work_as_they_do_for_a_detection(kind: str) -> None:
    network = detector(kind)
    seen: list[tuple[bool, torch.Size]] = []
    network.backbone.drop.register_forward_hook(
        lambda module, _, output: seen.append((module.training, output.shape))
    )
    if kind != "ssd":
        # Training draws a size, a detection takes the last.
        network.transform.min_size = (32, 128, SIZE[0])
    images, targets = _batch()
    with torch.inference_mode():
        detector_losses(network, images, targets, 0)
        network(images)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert not seen[0][0]


def test_faster_rcnn_s_draw_is_that_of_the_seed() -> None:
    network = detector("fasterrcnn")
    torch.manual_seed(5)
    first = detector_losses(network, *_batch(), 1)
    torch.manual_seed(6)
    again, other = (detector_losses(network, *_batch(), seed) for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)

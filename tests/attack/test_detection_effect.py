from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.attack.detectors import DEFENSE, SIZE, bare, picture
from tests.small import random_calibration
from zmask_export.attack.craft import random_patch
from zmask_export.attack.detection_effect import found_boxes, measure_detector
from zmask_export.attack.placement import random_placement
from zmask_export.attack.targets import free_boxes
from zmask_export.defense.zmask import ZMask
from zmask_export.errors import PatchError
from zmask_export.models.detection.network import DetectorNetwork
from zmask_export.spec import Policy

PATCH = random_patch((18, 20), 3)


def _outputs(*rows: tuple[tuple[float, float, float, float], float, int]) -> dict[str, Tensor]:
    """One image's detections, filled up to ten with zeros."""
    outputs = {
        "boxes": torch.zeros(1, 10, 4),
        "scores": torch.zeros(1, 10),
        "labels": torch.zeros(1, 10, dtype=torch.int64),
        "count": torch.tensor([len(rows)]),
    }
    for k, (box, score, label) in enumerate(rows):
        outputs["boxes"][0, k] = torch.tensor(box)
        outputs["scores"][0, k] = score
        outputs["labels"][0, k] = label
    return outputs


BOX, NEAR, FAR = (10.0, 10.0, 30.0, 30.0), (10.0, 10.0, 30.0, 20.0), (10.0, 10.0, 30.0, 19.9)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], 0),
        ([(BOX, 0.9, 1)], 1),
        ([(BOX, 0.5, 1)], 1),
        ([(BOX, 0.49, 1)], 0),
        ([(BOX, 0.9, 2)], 0),
        ([(NEAR, 0.9, 1)], 1),
        ([(FAR, 0.9, 1)], 0),
        ([(BOX, 0.9, 1), (BOX, 0.8, 1)], 1),
    ],
)
def test_an_object_is_found_by_a_sure_detection_of_its_class(
    rows: list[tuple[tuple[float, float, float, float], float, int]], found: int
) -> None:
    assert found_boxes(torch.tensor([BOX]), torch.tensor([1]), _outputs(*rows)) == found


def test_a_detection_finds_one_object() -> None:
    boxes, labels = torch.tensor([BOX, BOX]), torch.tensor([1, 1])
    assert found_boxes(boxes, labels, _outputs((BOX, 0.9, 1))) == 1
    assert found_boxes(boxes, labels, _outputs((BOX, 0.9, 1), (BOX, 0.8, 1))) == 2
    assert found_boxes(boxes, torch.tensor([1, 3]), _outputs((BOX, 0.9, 1))) == 1
    assert found_boxes(torch.zeros(0, 4), torch.zeros(0).long(), _outputs((BOX, 0.9, 1))) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_no_assignment_finds_more_than_twice_as_many(seed: int) -> None:
    """Greedy by score, as COCO counts it: never more than the best assignment, at least half of it."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 12, (6, 2))
    every = np.concatenate([corners, corners + rng.integers(8, 14, (6, 2))], 1).astype(np.float32)
    boxes, seen = every[:3], every[3:]
    rows = [(tuple(map(float, b)), 0.9 - 0.1 * k, 1) for k, b in enumerate(seen)]

    def hit(a: np.ndarray, b: np.ndarray) -> bool:
        side = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        shared = side.clip(min=0).prod()
        return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared) >= 0.5

    best = max(sum(map(hit, boxes, seen[list(order)])) for order in permutations(range(3)))
    found = found_boxes(torch.from_numpy(boxes), torch.ones(3).long(), _outputs(*rows))  # type: ignore[arg-type]
    assert best / 2 <= found <= best


def test_it_counts_the_objects_that_the_patch_leaves_free(trained: DetectorNetwork) -> None:
    network = trained
    calibration = random_calibration(network, DEFENSE, size=SIZE, threshold=0.15)
    samples = [picture(seed) for seed in range(12)]
    found, total, invented, flags, told = [0, 0], 0, 0, [], []
    for index, sample in enumerate(samples):
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None] / 255.0
        place = random_placement(np.random.default_rng((2, index)), SIZE, (18, 20))
        patched = image.clone()
        patched[0, :, place.rows, place.columns] = PATCH
        free = free_boxes(sample, place)
        total += free.sum()
        with torch.inference_mode():
            outputs = [network.predict(x) for x in (image, patched)]
            flags.append(bool(ZMask(network, calibration, Policy.MASK)(patched)["flag"]))
        for k, value in enumerate(outputs):
            boxes, labels = (torch.from_numpy(v[free]) for v in (sample.boxes, sample.labels))
            found[k] += found_boxes(boxes, labels, value)
        corners = torch.tensor([place.corners], dtype=torch.float32)
        invented += found_boxes(corners, torch.tensor([1]), outputs[1])
    effect = measure_detector(
        network,
        samples,
        PATCH,
        target_class=1,
        calibration=calibration,
        seed=2,
        on_image=told.append,
    )
    assert effect.found_clean == pytest.approx(found[0] / total)
    assert effect.found_patched == pytest.approx(found[1] / total)
    assert 0.2 < effect.found_patched < effect.found_clean < 1
    assert effect.invented == invented / 12
    assert effect.flagged == np.mean(flags)
    assert told == list(range(1, 13))


def test_without_objects_or_a_defense_nothing_is_said_of_them() -> None:
    network = bare("ssd")
    effect = measure_detector(network, [picture(0, count=0)], PATCH)
    assert (effect.found_clean, effect.found_patched) == (None, None)
    assert (effect.invented, effect.flagged) == (None, None)
    calibration = random_calibration(network, DEFENSE, size=SIZE)
    unfitted = replace(calibration, fusion=None)
    assert measure_detector(network, [picture(0)], PATCH, calibration=unfitted).flagged is None


def test_it_needs_a_patch_that_fits() -> None:
    with pytest.raises(PatchError, match="does not fit"):
        measure_detector(bare("ssd"), [picture(0)], random_patch((SIZE[0] + 1, 3), 0))

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.detection import MeanAveragePrecision

from zmask_export.errors import ShapeError
from zmask_export.evaluate.average_precision import (
    MAX_DETECTIONS,
    AveragePrecision,
    Matches,
    Truths,
    beside_patch,
    judge,
)
from zmask_export.evaluate.bootstrap import Resamples
from zmask_export.runtime.detections import Detections

NAMES = {1: "car", 2: "pedestrian", 3: "bicyclist"}
A, B, C = (0, 0, 20, 20), (30, 0, 60, 30), (0, 40, 40, 60)

Box = tuple[float, float, float, float]


def truths(*boxes: Box, labels: list[int] | None = None, crowd: list[bool] | None = None) -> Truths:
    """Cars, unless labels are given."""
    return Truths(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([1] * len(boxes) if labels is None else labels, np.int64),
        np.array([False] * len(boxes) if crowd is None else crowd, np.bool_),
    )


def found(*boxes: Box, scores: list[float], labels: list[int] | None = None) -> Detections:
    """Cars, unless labels are given."""
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array([1] * len(boxes) if labels is None else labels, np.int64),
    )


def both(true: list[Truths], claimed: list[Detections]) -> AveragePrecision:
    """The library's judgement, which :class:`Matches` must share."""
    judged = judge(true, claimed, NAMES)
    matches = Matches(NAMES)
    for pair in zip(true, claimed, strict=True):
        matches.add(*pair)
    value = matches.average_precision(np.ones((1, len(true))))[0]
    assert value == pytest.approx(
        np.nan if judged.at_50 is None else judged.at_50, abs=1e-6, nan_ok=True
    )
    return judged


def test_everything_found_is_one() -> None:
    judged = both([truths(A, B, labels=[1, 3])], [found(B, A, scores=[0.9, 0.2], labels=[3, 1])])
    assert judged.at_50 == pytest.approx(1)
    assert judged.at_50_95 == pytest.approx(1)
    assert judged.classes_at_50 == {"car": 1, "pedestrian": None, "bicyclist": 1}
    assert judged.objects == {"car": 1, "pedestrian": 0, "bicyclist": 1}


def test_a_find_after_a_false_one_has_half_the_precision() -> None:
    judged = both([truths(A)], [found(B, A, scores=[0.9, 0.8])])
    assert judged.at_50 == pytest.approx(0.5)


def test_a_false_find_after_all_objects_costs_nothing() -> None:
    assert both([truths(A)], [found(A, B, scores=[0.9, 0.8])]).at_50 == pytest.approx(1)


def test_half_the_objects_reach_half_the_recalls() -> None:
    judged = both([truths(A, B)], [found(A, scores=[0.9])])
    assert judged.at_50 == pytest.approx(51 / 101)  # recalls 0, 0.01, ..., 0.5


def test_an_object_is_found_once() -> None:
    judged = both([truths(A, B)], [found(A, A, B, scores=[0.9, 0.8, 0.7])])
    assert judged.at_50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_that_is_moved_counts_up_to_its_overlap() -> None:
    """Moved by a seventh of its width, a box has IoU 6/8 = 0.75 with its object: six IoUs of ten."""
    judged = both([truths((0, 0, 70, 20))], [found((10, 0, 80, 20), scores=[0.9])])
    assert judged.at_50 == pytest.approx(1)
    assert judged.at_50_95 == pytest.approx(0.6)
    assert both([truths((0, 0, 30, 20))], [found((11, 0, 41, 20), scores=[0.9])]).at_50 == 0


def test_the_mean_is_over_the_classes_that_have_objects() -> None:
    true = [truths(A, B, labels=[1, 2])]
    judged = both(true, [found(A, C, scores=[0.9, 0.8], labels=[1, 3])])
    assert judged.classes_at_50 == {"car": 1, "pedestrian": 0, "bicyclist": None}
    assert judged.at_50 == pytest.approx(0.5)


def test_what_lies_in_a_crowd_does_not_count() -> None:
    inside = [(0, 40, 10, 50), (10, 40, 20, 60)]
    true = [truths(A, C, crowd=[False, True])]
    assert both(true, [found(*inside, A, scores=[0.9, 0.8, 0.7])]).at_50 == pytest.approx(1)
    other = found(*inside, A, scores=[0.9, 0.8, 0.7], labels=[2, 2, 1])
    assert both(true, [other]).objects["car"] == 1
    half_out = found((30, 40, 51, 60), A, scores=[0.9, 0.7])
    assert both(true, [half_out]).at_50 == pytest.approx(0.5)


def test_an_object_goes_before_a_crowd_around_it() -> None:
    true = [truths((0, 0, 50, 50), A, crowd=[True, False])]
    assert both(true, [found(A, scores=[0.9])]).at_50 == pytest.approx(1)


def test_nothing_to_find_has_no_value() -> None:
    for image in (truths(), truths(A, crowd=[True]), truths(A, labels=[7])):
        judged = both([image], [found(B, scores=[0.5])])
        assert (judged.at_50, judged.at_50_95) == (None, None)
        assert set(judged.objects.values()) == {0}
    assert both([truths(A)], [found(scores=[])]).at_50 == 0
    assert both([], []).at_50 is None


def test_only_the_surest_detections_of_a_class_count() -> None:
    false = [B] * MAX_DETECTIONS
    scores = np.linspace(0.9, 0.5, MAX_DETECTIONS).tolist()
    assert both([truths(A)], [found(*false, A, scores=[*scores, 0.1])]).at_50 == 0
    assert both(
        [truths(A)], [found(*false[1:], A, scores=[*scores[1:], 0.1])]
    ).at_50 == pytest.approx(0.01)


def test_an_empty_box_finds_nothing() -> None:
    crowd = truths(A, C, crowd=[False, True])
    assert both([crowd], [found((5, 45, 5, 50), A, scores=[0.9, 0.8])]).at_50 == pytest.approx(0.5)


def test_every_image_needs_both() -> None:
    with pytest.raises(ShapeError, match="2 images have true boxes and 1"):
        judge([truths(A)] * 2, [found(A, scores=[0.5])], NAMES)


def test_the_library_keeps_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    judge([truths(A)], [found(A, scores=[0.5])], NAMES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("box", "hidden"),
    [
        ((0, 0, 20, 20), False),  # beside it
        ((12, 10, 32, 30), False),  # exactly a half
        ((12.1, 10, 32, 30), True),
        ((25, 15, 30, 20), True),  # inside
        ((0, 0, 100, 100), False),  # around it
        ((30, 20, 30, 25), False),  # empty
    ],
)
def test_what_the_patch_hides_does_not_count(box: Box, hidden: bool) -> None:
    patch = (22, 10, 42, 30)
    true, claimed = beside_patch(
        truths(A, box, box, crowd=[False, False, True]),
        found(box, B, scores=[0.9, 0.8], labels=[2, 3]),
        patch,
    )
    assert true.boxes.tolist() == truths(A, box, box).boxes.tolist()
    assert true.crowd.tolist() == [False, hidden, True]
    assert claimed.scores.tolist() == pytest.approx([0.8] if hidden else [0.9, 0.8])
    assert claimed.labels.tolist() == ([3] if hidden else [2, 3])
    assert claimed.boxes.tolist() == (
        [list(B)] if hidden else [list(map(np.float32, box)), list(B)]
    )


def scene(rng: np.random.Generator, ties: bool = False) -> tuple[Truths, Detections]:
    """Objects, and detections near them or anywhere."""
    count, claims = int(rng.integers(0, 7)), int(rng.integers(0, 12))
    corners = rng.integers(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + rng.integers(4, 40, (count, 2))]).astype(np.float32)
    labels = rng.integers(1, 4, count)
    crowd = rng.random(count) < 0.25
    anywhere = np.sort(rng.uniform(0, 100, (claims, 2, 2)), axis=1).reshape(claims, 4)
    picked = rng.integers(0, max(count, 1), claims)
    near = rng.random(claims) < (0.7 if count else 0)
    places = anywhere.astype(np.float32)
    classes = rng.integers(1, 4, claims)
    if count:
        places[near] = (boxes[picked] + rng.normal(0, 3, (claims, 4)))[near]
        places[:, 2:] = np.maximum(places[:, 2:], places[:, :2] + 1)
        classes = np.where(rng.random(claims) < 0.8, labels[picked], classes)
    scores = rng.integers(1, 4, claims) / 4 if ties else rng.random(claims)
    order = np.argsort(-scores, kind="stable")
    return Truths(boxes, labels, crowd), Detections(
        places[order], scores[order].astype(np.float32), classes[order]
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 8), ties=st.booleans())
def test_matches_give_the_librarys_value(seed: int, images: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng, ties) for _ in range(images)]
    both([s[0] for s in scenes], [s[1] for s in scenes])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_threshold_is_one_of_the_librarys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(4)]
    judged = judge([s[0] for s in scenes], [s[1] for s in scenes], NAMES)
    values = []
    for threshold in np.linspace(0.5, 0.95, 10):
        matches = Matches(NAMES, float(threshold))
        for pair in scenes:
            matches.add(*pair)
        values.append(matches.average_precision(np.ones((1, 4)))[0])
    expected = np.nan if judged.at_50_95 is None else judged.at_50_95
    assert np.mean(values) == pytest.approx(expected, abs=1e-6, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_are_repeated_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(6)]
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=3).astype(np.float64)
    matches = Matches(NAMES)
    for pair in scenes:
        matches.add(*pair)
    values = matches.average_precision(weights)
    for value, row in zip(values, weights, strict=True):
        drawn = [pair for pair, times in zip(scenes, row, strict=True) for _ in range(int(times))]
        judged = judge([s[0] for s in drawn], [s[1] for s in drawn], NAMES)
        expected = np.nan if judged.at_50 is None else judged.at_50
        assert value == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_torchmetrics_agrees() -> None:
    rng = np.random.default_rng(5)
    scenes = [scene(rng) for _ in range(30)]
    metric = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
    for true, claimed in scenes:
        metric.update(
            [{k: torch.from_numpy(v) for k, v in dataclasses.asdict(claimed).items()}],
            [
                {
                    "boxes": torch.from_numpy(true.boxes),
                    "labels": torch.from_numpy(true.labels),
                    "iscrowd": torch.from_numpy(true.crowd.astype(np.int64)),
                }
            ],
        )
    expected = metric.compute()
    judged = both([s[0] for s in scenes], [s[1] for s in scenes])
    assert judged.at_50 == pytest.approx(expected["map_50"].item(), abs=1e-6)
    assert judged.at_50_95 == pytest.approx(expected["map"].item(), abs=1e-6)


def test_the_bootstrap_takes_matches_as_they_are() -> None:
    rng = np.random.default_rng(6)
    scenes = [scene(rng) for _ in range(40)]
    matches = Matches(NAMES)
    for pair in scenes:
        matches.add(*pair)
    assert matches.images == 40
    estimate = Resamples(40, 200).estimate(matches.average_precision)
    judged = judge([s[0] for s in scenes], [s[1] for s in scenes], NAMES)
    assert estimate.value == pytest.approx(judged.at_50, abs=1e-6)
    assert estimate.interval is not None
    low, high = estimate.interval
    assert low < estimate.value < high

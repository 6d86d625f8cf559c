from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.attack.detectors import SIZE, picture
from zmask_export.attack.placement import Placement
from zmask_export.attack.settings import Goal
from zmask_export.attack.targets import Targets, covered, free_boxes
from zmask_export.data.coco import BoxSample
from zmask_export.errors import DatasetError

PLACE = Placement(10, 20, 16, 24)


def _sample(*boxes: tuple[float, float, float, float], **changes: Any) -> BoxSample:
    """A sample with these boxes, of the classes 1, 2, ..."""
    count = len(boxes)
    return replace(
        picture(0),
        **{
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "labels": np.arange(1, count + 1),
            "crowd": np.zeros(count, np.bool_),
            **changes,
        },
    )


def _rectangle(limit: tuple[int, int]) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """Top, left, height, width inside (H, W)."""
    rows, columns = (
        st.integers(0, side - 1).flatmap(
            lambda low, side=side: st.tuples(st.just(low), st.integers(1, side - low))
        )
        for side in limit
    )
    return st.tuples(rows, columns).map(lambda v: (v[0][0], v[1][0], v[0][1], v[1][1]))


@given(_rectangle(SIZE), _rectangle(SIZE))
def test_the_covered_share_is_that_of_the_pixels(
    box: tuple[int, int, int, int], patch: tuple[int, int, int, int]
) -> None:
    place = Placement(*patch)
    pixels = np.zeros(SIZE, np.bool_)
    pixels[place.rows, place.columns] = True
    top, left, height, width = box
    inside = pixels[top : top + height, left : left + width]
    boxes = np.array([[left, top, left + width, top + height]], np.float32)
    assert covered(boxes, place)[0] == pytest.approx(inside.mean(), abs=1e-6)


def test_a_box_is_free_up_to_half_of_its_area() -> None:
    sample = _sample(
        (0, 10, 40, 26),  # half of it
        (0, 10, 41, 26),  # 21 of 41 columns
        (20, 10, 44, 26),  # the patch itself
        (0, 0, 80, 64),  # all around it
        (50, 40, 60, 50),  # elsewhere
    )
    assert covered(sample.boxes, PLACE).tolist() == pytest.approx(
        [0.5, 21 / 41, 1, 384 / 5120, 0], abs=1e-6
    )
    assert free_boxes(sample, PLACE).tolist() == [True, False, False, True, True]


def test_what_is_no_object_is_no_target() -> None:
    sample = _sample(
        (50, 40, 60, 50),
        (50, 40, 60, 50),
        (50, 40, 50.5, 50),
        (50, 40, 60, 40.001),
        (50, 40, 51, 41),
        crowd=np.array([False, True, False, False, False]),
    )
    target = Targets("misclassify").of(sample, PLACE)
    assert target["labels"].tolist() == [1, 5]
    assert target["boxes"].tolist() == [[50, 40, 60, 50], [50, 40, 51, 41]]


@pytest.mark.parametrize("goal", ["misclassify", "untargeted"])
def test_without_a_free_box_there_is_no_target(goal: Goal) -> None:
    for sample in (_sample(), _sample((21, 11, 40, 20))):
        target = Targets(goal).of(sample, PLACE)
        assert target["boxes"].shape == (0, 4)
        assert target["labels"].shape == (0,)


def test_a_false_detection_is_the_patch_and_nothing_else() -> None:
    for sample in (_sample(), _sample((50, 40, 60, 50))):
        target = Targets("false-detection", 3).of(sample, PLACE)
        assert target["boxes"].tolist() == [[20, 10, 44, 26]]
        assert target["labels"].tolist() == [3]


def test_images_must_be_able_to_give_a_target() -> None:
    bald = [_sample(), _sample((5, 5, 20, 20), crowd=np.ones(1, np.bool_))]
    for samples in ([], bald):
        with pytest.raises(DatasetError, match="none with a box"):
            Targets("untargeted").require_some(samples)
    Targets("untargeted").require_some([*bald, _sample((5, 5, 20, 20))])
    Targets("false-detection", 1).require_some(bald)
    with pytest.raises(DatasetError, match="no image"):
        Targets("false-detection", 1).require_some([])

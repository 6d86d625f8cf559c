from __future__ import annotations

import numpy as np
import pytest

from zmask_export.data.segmentation import CAMVID_CLASSES
from zmask_export.runtime import pictures
from zmask_export.runtime.protected import Result

SHAPE = (24, 32)


@pytest.fixture
def result() -> Result:
    """A prediction of all CamVid classes with a covered rectangle."""
    mask = np.ones(SHAPE, bool)
    mask[8:16, 8:20] = False
    prediction = (np.arange(SHAPE[0] * SHAPE[1]) % len(CAMVID_CLASSES)).reshape(SHAPE)
    grid = np.zeros((3, 4), np.float32)
    return Result(prediction.astype(np.uint8), None, mask, True, 2.0, 1.0, grid, grid, grid, {})


def test_the_mask_is_black_where_covered(result: Result) -> None:
    picture = pictures.mask_picture(result)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture == 255, result.mask)
    np.testing.assert_array_equal(picture == 0, ~result.mask)


def test_every_class_has_its_own_colour() -> None:
    for classes in (CAMVID_CLASSES, tuple(f"class {i}" for i in range(40))):
        assert len(np.unique(pictures.palette(classes), axis=0)) == len(classes)


def test_the_prediction_is_painted_by_class(result: Result) -> None:
    painted = pictures.colour_prediction(result.prediction, CAMVID_CLASSES)
    np.testing.assert_array_equal(painted[0, 3], pictures.palette(CAMVID_CLASSES)[3])
    assert painted.shape == (*SHAPE, 3)


def test_the_overlay_marks_covered_pixels_only(result: Result) -> None:
    image = np.full((*SHAPE, 3), 100, np.uint8)
    marked = pictures.overlay(image, result, CAMVID_CLASSES)
    everything = np.ones(SHAPE, bool)
    plain = pictures.overlay(
        image,
        Result(result.prediction, None, everything, False, 0.0, 1.0, *[result.soft_mask] * 3, {}),
        CAMVID_CLASSES,
    )
    changed = (marked != plain).any(axis=2)
    assert not (changed & result.mask).any()
    assert (changed & ~result.mask).sum() > 0.5 * (~result.mask).sum()
    assert image.max() == 100

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from zmask_export.data.segmentation import CAMVID_CLASSES
from zmask_export.runtime import pictures
from zmask_export.runtime.detections import Detections
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


def test_a_class_without_a_customary_colour_gets_a_hue_by_its_place() -> None:
    hues = pictures.palette(("first", "second", "third"))
    assert hues.tolist() == [[230, 57, 57], [57, 230, 57], [57, 57, 230]]
    assert pictures.palette(("road", "second")).tolist() == [[128, 64, 128], [57, 230, 230]]
    assert hues.dtype == np.uint8


def _painted(
    base: NDArray[np.float64], edge: NDArray[np.bool_], inner: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """A magenta edge, and in it diagonal stripes, four pixels wide, that are 60 % magenta."""
    painted = base.copy()
    for row, column in zip(*np.nonzero(inner), strict=True):
        if (row + column) % 8 < 4:
            painted[row, column] = 0.4 * base[row, column] + (153, 0, 153)
    painted[edge] = (255, 0, 255)
    return painted.round().astype(np.uint8)


@pytest.mark.parametrize(
    ("rows", "columns", "inner_rows", "inner_columns"),
    [
        ((8, 16), (8, 20), (10, 14), (10, 18)),
        ((0, 24), (0, 32), (2, 22), (2, 30)),  # the whole image, which ends at its border
        ((3, 7), (1, 6), (5, 5), (3, 4)),  # too low to hold anything but an edge
    ],
)
def test_covered_pixels_are_hatched_within_an_edge_of_two_pixels(
    rows: tuple[int, int],
    columns: tuple[int, int],
    inner_rows: tuple[int, int],
    inner_columns: tuple[int, int],
    result: Result,
) -> None:
    covered, inner = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    covered[slice(*rows), slice(*columns)] = True
    inner[slice(*inner_rows), slice(*inner_columns)] = True
    image = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    colours = pictures.palette(CAMVID_CLASSES)[result.prediction]
    segmented = replace(result, mask=~covered)
    expected = _painted((image / 2 + colours / 2), covered & ~inner, inner)
    np.testing.assert_array_equal(
        pictures.overlay(image, segmented, CAMVID_CLASSES), expected, strict=True
    )
    # A detector's image is not mixed with anything, and without objects nothing is drawn.
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
    detected = replace(segmented, prediction=None, detections=nothing)
    expected = _painted(image.astype(np.float64), covered & ~inner, inner)
    np.testing.assert_array_equal(
        pictures.overlay(image, detected, CAMVID_CLASSES), expected, strict=True
    )


def test_a_ragged_edge_is_what_has_a_kept_pixel_two_steps_away(result: Result) -> None:
    covered = np.random.default_rng(3).random(SHAPE) < 0.8
    edge = np.zeros(SHAPE, bool)
    for row, column in zip(*np.nonzero(covered), strict=True):
        for r, c in ((row - 2, column), (row + 2, column), (row, column - 2), (row, column + 2)):
            outside = not (0 <= r < SHAPE[0] and 0 <= c < SHAPE[1])
            edge[row, column] |= outside or not covered[r, c]
    grey = np.full((*SHAPE, 3), 100, np.uint8)
    drawn = pictures.overlay(grey, replace(result, prediction=None, mask=~covered), CAMVID_CLASSES)
    np.testing.assert_array_equal((drawn == (255, 0, 255)).all(axis=2), edge)


CLASSES = ("background", "car", "tree", "bird")


def _boxes(result: Result, *found: tuple[tuple[int, int, int, int], float, int]) -> Result:
    boxes, scores, labels = zip(*found, strict=True)
    objects = Detections(
        np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels)
    )
    return replace(result, prediction=None, detections=objects, mask=np.ones((60, 160), bool))


def test_a_box_has_its_class_colour_its_name_and_its_score(result: Result) -> None:
    image = np.zeros((60, 160, 3), np.uint8)
    found = _boxes(result, ((10, 12, 140, 50), 0.876, 1))
    drawn = pictures.overlay(image, found, CLASSES)
    boxed = image.copy()
    boxed[12:51, 10:141] = (0, 0, 142)
    boxed[14:49, 12:139] = 0
    expected = Image.fromarray(boxed)
    # The words start three pixels to the right of the box's corner and one below it.
    ImageDraw.Draw(expected).text((13, 13), "car 0.88", fill=(0, 0, 142))
    np.testing.assert_array_equal(drawn, np.asarray(expected), strict=True)
    assert (drawn != boxed).any()
    assert image.max() == 0


def test_the_surest_box_lies_on_top(result: Result) -> None:
    image = np.zeros((60, 160, 3), np.uint8)
    box = (10, 12, 140, 50)
    found = _boxes(result, (box, 0.9, 2), (box, 0.5, 1))
    drawn = pictures.overlay(image, found, CLASSES)
    outline = [drawn[12, 10], drawn[30, 11], drawn[50, 90], drawn[49, 140]]
    assert [tuple(pixel.tolist()) for pixel in outline] == [(107, 142, 35)] * 4
    alone = pictures.overlay(image, _boxes(result, (box, 0.9, 2)), CLASSES)
    assert (drawn != alone).any()

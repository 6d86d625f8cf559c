from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_jaccard_index

from zmask_export.data.segmentation import IGNORE
from zmask_export.errors import ShapeError
from zmask_export.evaluate.metrics import ConfusionMatrix, mask_iou, mean_iou, overlap

CLASSES = 4
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)


@st.composite
def maps(draw: st.DrawFn) -> tuple[NDArray, NDArray, NDArray]:
    """Predictions, labels with unlabelled pixels, and which pixels are valid."""
    shape = draw(shapes)
    label = st.sampled_from([*range(CLASSES), IGNORE])
    return (
        draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, CLASSES - 1))),
        draw(hnp.arrays(np.uint8, shape, elements=label)),
        draw(hnp.arrays(bool, shape)),
    )


@given(items=st.lists(maps(), min_size=1, max_size=3), masked=st.booleans())
def test_the_counts_are_those_of_a_loop_over_pixels(
    items: list[tuple[NDArray, NDArray, NDArray]], masked: bool
) -> None:
    matrix, expected = ConfusionMatrix(CLASSES), np.zeros((CLASSES, CLASSES), int)
    for prediction, labels, valid in items:
        matrix.update(prediction, labels, valid if masked else None)
        for p, t, v in zip(prediction.flat, labels.flat, valid.flat, strict=True):
            if t != IGNORE and (v or not masked):
                expected[t, p] += 1
    np.testing.assert_array_equal(matrix.counts, expected)

    ious = []
    for c in range(CLASSES):
        union = expected[c].sum() + expected[:, c].sum() - expected[c, c]
        ious.append(expected[c, c] / union if union else float("nan"))
    np.testing.assert_allclose(matrix.class_iou(), ious)
    seen = [iou for iou in ious if not np.isnan(iou)]
    mean = np.mean(seen) if seen else float("nan")
    assert matrix.mean_iou() == pytest.approx(mean, nan_ok=True)


@given(first=maps(), second=maps())
def test_merging_is_counting_everything(
    first: tuple[NDArray, NDArray, NDArray], second: tuple[NDArray, NDArray, NDArray]
) -> None:
    together, a, b = (ConfusionMatrix(CLASSES) for _ in range(3))
    for matrix, item in ((a, first), (b, second), (together, first), (together, second)):
        matrix.update(*item)
    a += b
    np.testing.assert_array_equal(a.counts, together.counts)


@given(items=st.lists(maps(), min_size=1, max_size=3))
def test_overlaps_of_images_add_up(items: list[tuple[NDArray, NDArray, NDArray]]) -> None:
    matrix = ConfusionMatrix(CLASSES)
    total = np.zeros((2, CLASSES), np.int64)
    for prediction, labels, valid in items:
        matrix.update(prediction, labels, valid)
        total += overlap(prediction, labels, CLASSES, valid)
    np.testing.assert_array_equal(total, matrix.overlap())
    np.testing.assert_array_equal(mean_iou(total), matrix.mean_iou())


def test_mean_iou_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 5, 11):
        # The last class never occurs: neither mean counts it.
        labels = rng.integers(0, classes - 1, (3, 20, 30)).astype(np.uint8)
        guess = rng.integers(0, classes - 1, labels.shape)
        prediction = np.where(rng.random(labels.shape) < 0.6, labels, guess).astype(np.uint8)
        labels[rng.random(labels.shape) < 0.1] = IGNORE
        overlaps = np.stack(
            [overlap(p, t, classes) for p, t in zip(prediction, labels, strict=True)]
        )
        expected = multiclass_jaccard_index(
            torch.from_numpy(prediction).long(),
            torch.from_numpy(labels).long(),
            classes,
            ignore_index=IGNORE,
        )
        assert float(mean_iou(overlaps.sum(0))) == pytest.approx(float(expected), rel=1e-6)
        assert mean_iou(overlaps).shape == (3,)


def test_mean_iou_of_stacked_counts() -> None:
    counts = np.array([[[1, 0, 0], [2, 4, 0]], [[0, 0, 0], [0, 0, 0]], [[3, 1, 2], [3, 2, 2]]])
    np.testing.assert_allclose(mean_iou(counts), [0.25, np.nan, 2.5 / 3])


@given(item=maps())
def test_labels_and_predictions_stay_as_they_are(item: tuple[NDArray, NDArray, NDArray]) -> None:
    before = [array.copy() for array in item]
    ConfusionMatrix(CLASSES).update(*item)
    for array, copy in zip(item, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_an_absent_class_does_not_count_and_a_missed_one_counts_as_zero() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 0, 0]]), np.array([[0, 0, 1, IGNORE]]))
    np.testing.assert_allclose(matrix.class_iou(), [2 / 3, 0, np.nan])
    assert matrix.mean_iou() == pytest.approx(1 / 3)


def test_nothing_counted_gives_nan() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros((2, 2), int), np.full((2, 2), IGNORE))
    assert np.isnan(matrix.mean_iou())


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\) and labels \(3, 2\)"):
        ConfusionMatrix(2).update(np.zeros((2, 3), int), np.zeros((3, 2), int))


@given(pair=shapes.flatmap(lambda s: st.tuples(hnp.arrays(bool, s), hnp.arrays(bool, s))))
def test_mask_iou_is_that_of_sets(pair: tuple[NDArray, NDArray]) -> None:
    a, b = (set(zip(*np.nonzero(mask), strict=True)) for mask in pair)
    assert mask_iou(*pair) == (len(a & b) / len(a | b) if a | b else 1.0)
    assert mask_iou(*pair) == mask_iou(*pair[::-1])

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_auroc, binary_roc

from zmask_export.calibrate import roc
from zmask_export.errors import CalibrationError, UsageError
from zmask_export.evaluate import detection


@st.composite
def drawn(draw: st.DrawFn) -> tuple[NDArray, NDArray, NDArray]:
    """Scores of the same images clean and patched, with ties, and a bootstrap draw of the images."""
    count = draw(st.integers(1, 7))
    scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=count, max_size=count)
    picks = draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count))
    return np.array(draw(scores)), np.array(draw(scores)), np.array(picks)


def weights_of(picks: NDArray) -> NDArray:
    """Images as they are, and the draw."""
    return np.stack([np.ones(len(picks)), np.bincount(picks, minlength=len(picks))]).astype(float)


@given(item=drawn())
def test_auc_counts_pairs(item: tuple[NDArray, NDArray, NDArray]) -> None:
    clean, patched, picks = item
    pairs = [
        np.mean([(p > c) + (p == c) / 2 for p in patched[rows] for c in clean[rows]])
        for rows in (np.arange(len(picks)), picks)
    ]
    np.testing.assert_allclose(detection.auc(clean, patched, weights_of(picks)), pairs)
    assert roc.auc(clean, patched) == pytest.approx(pairs[0])


@given(item=drawn(), target=st.sampled_from([0.05, 0.5, 0.95, 0.99, 1.0]))
def test_fpr_at_tpr_is_the_best_of_all_thresholds(
    item: tuple[NDArray, NDArray, NDArray], target: float
) -> None:
    clean, patched, picks = item
    expected = []
    for rows in (np.arange(len(picks)), picks):
        rates = [
            (clean[rows] > cut).mean()
            for cut in (-1.0, 0.1, 0.3, 0.6, 0.9)
            if (patched[rows] > cut).mean() >= target - 1e-12
        ]
        expected.append(min(rates))
    found = detection.fpr_at_tpr(clean, patched, target, weights_of(picks))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(item=drawn())
def test_the_area_under_the_curve_is_the_auc(item: tuple[NDArray, NDArray, NDArray]) -> None:
    clean, patched, _ = item
    fpr, tpr = detection.roc_curve(clean, patched).T
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc.auc(clean, patched))


def test_curve_and_area_are_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    clean, patched = rng.beta(2, 4, 60), rng.beta(3, 3, 60)
    scores = torch.from_numpy(np.concatenate([clean, patched]))
    labels = torch.tensor([0] * 60 + [1] * 60)
    area = detection.auc(clean, patched, np.ones((1, 60)))[0]
    assert area == pytest.approx(float(binary_auroc(scores, labels)))
    fpr, tpr, _ = (part.numpy() for part in binary_roc(scores, labels))
    corners = detection.roc_curve(clean, patched)
    assert len(corners) < len(fpr)
    # Between corners the curve is straight; on a vertical part only the ends can be compared.
    for x, y in zip(fpr, tpr, strict=True):
        column = corners[np.isclose(corners[:, 0], x), 1]
        if column.size:
            assert column.min() - 1e-6 <= y <= column.max() + 1e-6
        else:
            assert np.interp(x, *corners.T) == pytest.approx(y, abs=1e-6)


def test_scores_that_are_told_apart_perfectly() -> None:
    clean, patched, ones = np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.ones((1, 2))
    assert detection.auc(clean, patched, ones) == [1.0]
    assert detection.fpr_at_tpr(clean, patched, 1.0, ones) == [0.0]
    np.testing.assert_array_equal(detection.roc_curve(clean, patched), [[0, 0], [0, 1], [1, 1]])


@pytest.mark.parametrize("bad", [np.array([np.nan, 1.0]), np.array([np.inf, 1.0]), np.array([])])
def test_scores_that_are_no_numbers_are_refused(bad: NDArray) -> None:
    good, ones = np.array([1.0, 2.0]), np.ones((1, 2))
    for clean, patched, word in ((bad, good, "clean"), (good, bad, "patched")):
        with pytest.raises(CalibrationError, match=word):
            detection.auc(clean, patched, ones)
        with pytest.raises(CalibrationError, match=word):
            detection.fpr_at_tpr(clean, patched, 0.95, ones)
        with pytest.raises(CalibrationError, match=word):
            detection.roc_curve(clean, patched)


@pytest.mark.parametrize("target", [0.0, 1.5, float("nan")])
def test_a_tpr_outside_its_range_is_refused(target: float) -> None:
    scores = np.array([1.0, 2.0])
    with pytest.raises(UsageError, match="TPR of"):
        detection.fpr_at_tpr(scores, scores, target, np.ones((1, 2)))

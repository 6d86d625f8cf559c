from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zmask_export.calibrate import roc
from zmask_export.errors import CalibrationError, UsageError

Scores = NDArray[np.float64]

# Scores are float32 in the engine; a few round values make ties frequent.
score = st.floats(0, 1e6, width=32) | st.sampled_from([0.0, 0.5, 1.0, 2.0])
scores = st.lists(score, min_size=1, max_size=12).map(np.array)


def _rates(threshold: float, clean: Scores, patched: Scores) -> tuple[float, float]:
    return float((patched > threshold).mean()), float((clean > threshold).mean())


@given(clean=scores, patched=scores)
def test_auc_counts_pairs(clean: Scores, patched: Scores) -> None:
    wins = sum((p > c) + (p == c) / 2 for p in patched for c in clean)
    assert roc.auc(clean, patched) == pytest.approx(wins / (clean.size * patched.size), abs=1e-12)


def test_auc_of_closed_cases() -> None:
    low, high = np.array([0.1, 0.2]), np.array([0.3, 0.4])
    assert roc.auc(low, high) == 1
    assert roc.auc(high, low) == 0
    assert roc.auc(low, low) == 0.5
    assert roc.auc(np.zeros(3), np.zeros(5)) == 0.5


@settings(max_examples=300)
@given(clean=scores, patched=scores)
def test_the_best_cut_is_the_best_of_all_cuts(clean: Scores, patched: Scores) -> None:
    cut = roc.best_cut(clean, patched)
    assert (cut.true_positive_rate, cut.false_positive_rate) == _rates(
        cut.threshold, clean, patched
    )
    every = np.concatenate([[-1.0], clean, patched])
    best = max(t - f for t, f in (_rates(c, clean, patched) for c in every))
    gained = cut.true_positive_rate - cut.false_positive_rate
    assert gained == pytest.approx(best, abs=1e-12)
    # The threshold is saved as float32: it must still do the same.
    stored = float(np.float32(cut.threshold))
    assert _rates(stored, clean, patched) == _rates(cut.threshold, clean, patched)


def test_the_best_cut_lies_in_the_geometric_middle_of_its_gap() -> None:
    cut = roc.best_cut(np.array([0.5, 1.0]), np.array([100.0, 200.0]))
    assert cut == roc.Cut(10.0, 1.0, 0.0)
    assert roc.best_cut(np.array([0.0]), np.array([3.0])).threshold == 1.5


def test_a_cut_between_neighbouring_numbers_separates_them() -> None:
    for low in (1.0, 1.5, 0.1, 1e-200, 1e200):
        high = float(np.nextafter(low, np.inf))
        cut = roc.best_cut(np.array([low]), np.array([high]))
        assert (cut.true_positive_rate, cut.false_positive_rate) == (1.0, 0.0)


@given(clean=scores, patched=scores, target=st.floats(0, 0.999))
def test_the_cut_at_a_rate_is_the_smallest_that_keeps_it(
    clean: Scores, patched: Scores, target: float
) -> None:
    cut = roc.cut_at_fpr(clean, patched, target)
    assert (cut.true_positive_rate, cut.false_positive_rate) == _rates(
        cut.threshold, clean, patched
    )
    assert cut.false_positive_rate <= target + 1e-9
    below = float(np.nextafter(cut.threshold, -np.inf))
    assert _rates(below, clean, patched)[1] > target


def test_no_false_positive_means_the_largest_clean_score() -> None:
    clean = np.array([3.0, 1.0, 2.0, 4.0])
    assert roc.cut_at_fpr(clean, clean, 0).threshold == 4
    assert roc.cut_at_fpr(clean, clean, 0.25).threshold == 3
    assert roc.cut_at_fpr(clean, clean, 0.26).threshold == 3


@pytest.mark.parametrize("target", [-0.1, 1.0, 2.0, float("nan")])
def test_a_rate_outside_0_1_is_refused(target: float) -> None:
    with pytest.raises(UsageError, match="false-positive rate"):
        roc.cut_at_fpr(np.ones(3), np.ones(3), target)


@pytest.mark.parametrize("bad", [[], [1, float("nan")], [float("inf")]])
def test_scores_that_are_empty_or_not_finite_are_refused(bad: list[float]) -> None:
    wrong, good = np.array(bad, np.float64), np.ones(2)
    for function in (roc.auc, roc.best_cut, lambda c, p: roc.cut_at_fpr(c, p, 0.1)):
        with pytest.raises(CalibrationError, match="clean images are empty or not finite"):
            function(wrong, good)
        with pytest.raises(CalibrationError, match="patched images are empty or not finite"):
            function(good, wrong)

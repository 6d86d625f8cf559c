from __future__ import annotations

import numpy as np
import pytest

from zmask_export.errors import UsageError
from zmask_export.evaluate.bootstrap import Resamples


def test_the_value_is_that_of_the_images_as_they_are() -> None:
    values = np.array([0.1, 0.4, 0.7, 1.0])
    estimate = Resamples(4, 50).mean(values)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.images == 4
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= estimate.value <= estimate.high


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    seen = []
    Resamples(7, 40).estimate(lambda w: seen.append(w) or w.sum(1))  # type: ignore[func-returns-value]
    (weights,) = seen
    assert weights.shape == (41, 7)
    np.testing.assert_array_equal(weights[0], 1)
    np.testing.assert_array_equal(weights.sum(1), 7)
    assert (weights[1:] != 1).any(1).all()
    assert weights[1:].mean(0) == pytest.approx(np.ones(7), abs=0.4)


def test_a_seed_decides_the_interval() -> None:
    values = np.random.default_rng(0).random(30)
    first, again, other = (Resamples(30, 200, seed).mean(values) for seed in (1, 1, 2))
    assert first == again
    assert (first.value, first.interval) != (other.value, other.interval)
    assert first.value == other.value


def test_the_interval_is_that_of_the_normal_distribution_for_a_mean() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    interval = Resamples(400, 4000).mean(values).interval
    assert interval is not None
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=half * 0.12)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for seed in range(200):
        interval = Resamples(50, 200, seed).mean(rng.normal(0, 1, 50)).interval
        assert interval is not None
        held += interval[0] <= 0 <= interval[1]
    assert 180 <= held <= 198


def test_constant_values_have_a_point_for_an_interval() -> None:
    assert Resamples(9, 100).mean(np.full(9, 0.25)).interval == (0.25, 0.25)


@pytest.mark.parametrize(("defined", "known"), [(96, True), (94, False)])
def test_an_interval_needs_resamples_that_define_the_number(defined: int, known: bool) -> None:
    values = np.concatenate([[1.0], np.full(defined, 2.0), np.full(100 - defined, np.nan)])
    estimate = Resamples(3, 100).estimate(lambda weights: values)
    assert estimate.value == 1.0
    assert estimate.interval == ((2.0, 2.0) if known else None)


def test_a_number_that_is_not_defined_is_none() -> None:
    estimate = Resamples(3, 10).estimate(lambda weights: np.full(len(weights), np.nan))
    assert (estimate.value, estimate.low, estimate.high) == (None, None, None)


@pytest.mark.parametrize(("images", "count"), [(0, 10), (5, 0)])
def test_nothing_to_draw_is_refused(images: int, count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} resamples of {images} images"):
        Resamples(images, count)

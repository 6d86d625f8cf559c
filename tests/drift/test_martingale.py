"""The drift test: its false-alarm rate by simulation, what it finds and how soon, and its edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, kstest

from zmask_export.drift.martingale import SLOPES, DriftTest, _bets, rounded
from zmask_export.errors import CalibrationError, InputError, UsageError

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]

finite = st.floats(allow_nan=False, allow_infinity=False)
DISTRIBUTIONS: dict[str, Draw] = {
    "skewed": lambda rng, n: rng.lognormal(-4, 0.6, n),
    "heavy-tailed": lambda rng, n: rng.standard_cauchy(n),
    "full of ties": lambda rng, n: rng.integers(0, 4, n).astype(np.float64),
    "constant": lambda rng, n: np.full(n, 0.25),
}


def run(test: DriftTest, scores: NDArray[np.float64]) -> list[float]:
    """p-value of every score."""
    values = []
    for score in scores.tolist():
        test.update(score)
        values.append(test.p)
    return values


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_alarms_without_drift_are_as_rare_as_stated(name: str) -> None:
    rng, alpha, streams, alarms = np.random.default_rng(5), 0.1, 400, 0
    for seed in range(streams):
        reference, scores = np.split(DISTRIBUTIONS[name](rng, 25 + 300), [25])
        # So small a sample that members leave it all the time.
        test = DriftTest(reference.tolist(), false_alarms=alpha, seed=seed, capacity=40)
        run(test, scores)
        alarms += test.alarm is not None
    assert binomtest(alarms, streams, alpha, alternative="greater").pvalue > 0.01


def test_alarms_without_drift_do_occur() -> None:
    # Else the test above would hold of one that never bets.
    rng = np.random.default_rng(6)
    tests = [DriftTest(rng.normal(size=25).tolist(), false_alarms=0.5, seed=s) for s in range(60)]
    for test in tests:
        run(test, rng.normal(size=200))
    assert 5 <= sum(test.alarm is not None for test in tests) <= 40


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_p_values_are_independent_and_uniform(name: str) -> None:
    rng = np.random.default_rng(7)
    reference, scores = np.split(DISTRIBUTIONS[name](rng, 20 + 4000), [20])
    p = np.array(run(DriftTest(reference.tolist(), capacity=50), scores))
    assert kstest(p, "uniform").pvalue > 0.01
    for lag in (1, 2, 10):
        assert abs(np.corrcoef(p[:-lag], p[lag:])[0, 1]) < 3 / math.sqrt(p.size)


def test_every_bet_is_fair_and_never_owes() -> None:
    p = (np.arange(10_000) + 0.5) / 10_000
    paid = 1 + np.stack([p - 0.5, np.abs(2 * p - 1) - 0.5], axis=1) @ _bets()
    assert paid.shape == (10_000, 1 + 4 * len(SLOPES))
    assert np.allclose(paid.mean(axis=0), 1, atol=1e-9)
    assert paid.min() >= 0


@pytest.mark.parametrize(
    ("change", "frames"),
    [
        pytest.param(lambda x: x + 2, 20, id="two deviations up"),
        pytest.param(lambda x: x - 2, 20, id="two deviations down"),
        pytest.param(lambda x: x + 1, 60, id="one deviation up"),
        pytest.param(lambda x: x * 3, 60, id="spread three times as wide"),
        pytest.param(lambda x: x * 0.2, 60, id="spread a fifth as wide"),
    ],
)
def test_a_drift_is_found_within_so_many_frames(
    change: Callable[[NDArray[np.float64]], NDArray[np.float64]], frames: int
) -> None:
    rng, found = np.random.default_rng(8), 0
    for seed in range(40):
        test = DriftTest(rng.normal(size=100).tolist(), false_alarms=0.01, seed=seed)
        run(test, change(rng.normal(size=frames)))
        found += test.alarm is not None
    assert found >= 36


def test_a_drift_after_a_long_calm_and_a_slow_one_are_found() -> None:
    rng = np.random.default_rng(9)
    late = DriftTest(rng.normal(size=100).tolist())
    run(late, rng.normal(size=1000))
    assert late.alarm is None
    run(late, 1 + rng.normal(size=100))
    assert late.alarm is not None
    assert late.alarm > 1000
    first = late.alarm
    assert late.update(1.0)
    assert late.alarm == first
    slow = DriftTest(rng.normal(size=100).tolist(), capacity=1000)
    run(slow, rng.normal(size=6000) + np.linspace(0, 2, 6000))
    assert slow.alarm is not None
    assert slow.alarm > 100


def test_dependence_is_the_correlation_of_neighbours() -> None:
    rng = np.random.default_rng(10)
    test = DriftTest(rng.normal(size=100).tolist())
    assert test.dependence is None
    walk = np.zeros(2000)
    for index in range(1, walk.size):
        walk[index] = 0.8 * walk[index - 1] + 0.6 * rng.normal()
    p = np.array(run(test, walk))
    assert test.dependence == pytest.approx(np.corrcoef(p[:-1], p[1:])[0, 1], abs=0.01)
    assert test.dependence > 0.6
    free = DriftTest(rng.normal(size=100).tolist())
    run(free, rng.normal(size=2000))
    assert free.dependence is not None
    assert abs(free.dependence) < 3 / math.sqrt(2000)


def test_the_first_ranks_and_wealth_by_hand() -> None:
    test = DriftTest([1.0, 2.0, 3.0], false_alarms=0.01)
    assert not test.update(10.0)
    assert 0 <= test.p < 1 / 4
    # Every bet has its opposite, so a single frame earns nothing.
    assert test.log_wealth == pytest.approx(0, abs=1e-12)
    first = test.p
    test.update(10.0)
    assert 0 <= test.p < 2 / 5  # above 1, 2, 3; the tie with 10 is broken by chance
    along, across = (
        (first - 0.5) * (test.p - 0.5),
        (abs(2 * first - 1) - 0.5) * (abs(2 * test.p - 1) - 0.5),
    )
    squares = sum(slope**2 for slope in SLOPES)
    gain = 0.999 * 2 * squares * (along + across) / (1 + 4 * len(SLOPES))
    assert test.log_wealth == pytest.approx(math.log(1 + gain), abs=1e-9)
    lowest = DriftTest([1.0, 2.0, 3.0])
    lowest.update(0.0)
    assert 3 / 4 <= lowest.p < 1


def test_scores_are_compared_as_the_calibration_keeps_them() -> None:
    assert rounded(0.123456) == 0.12346
    # Unrounded, each of these would stand above the whole calibration.
    test = DriftTest([0.12346] * 50)
    run(test, np.full(300, 0.1234604))
    assert test.alarm is None


@given(
    reference=st.lists(finite, min_size=1, max_size=8),
    scores=st.lists(finite, max_size=30),
    capacity=st.integers(1, 10),
)
@settings(max_examples=60, deadline=None)
def test_any_scores_keep_what_holds_always(
    reference: list[float], scores: list[float], capacity: int
) -> None:
    test = DriftTest(reference, false_alarms=0.3, capacity=capacity)
    first = None
    for number, score in enumerate(scores, 1):
        raised = test.update(score)
        assert test.frames == number
        assert 0 <= test.p < 1
        assert math.isfinite(test.log_wealth)
        assert test.log_wealth <= test.peak
        assert raised == (test.peak >= -math.log(0.3)) == (test.alarm is not None)
        first = number if raised and first is None else first
        assert test.alarm == first
        assert len(test._sample) == min(len(reference) + number, max(capacity, len(reference)))
        assert test._sample == sorted(test._sample)


@given(
    reference=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    scores=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_only_ranks_count_and_not_the_references_order(
    reference: list[int], scores: list[int], data: st.DataObject
) -> None:
    plain = run(DriftTest([float(v) for v in reference]), np.array(scores, float))
    mixed = data.draw(st.permutations(reference))
    warped = run(DriftTest([math.exp(v) for v in mixed]), np.exp(np.array(scores, float)))
    assert plain == warped


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_changes_nothing(score: float) -> None:
    test = DriftTest([1.0])
    with pytest.raises(InputError, match="cannot be ranked"):
        test.update(score)
    assert (test.frames, test.log_wealth, test.alarm) == (0, 0, None)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_of_false_alarms_lies_between_0_and_1(rate: float) -> None:
    with pytest.raises(UsageError, match=r"not in \(0, 1\)"):
        DriftTest([1.0], false_alarms=rate)


@pytest.mark.parametrize("reference", [[], [1.0, math.nan], [math.inf]])
def test_a_reference_without_scores_is_refused(reference: list[float]) -> None:
    with pytest.raises(CalibrationError, match="not all finite"):
        DriftTest(reference)

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from zmask_export.calibrate.moments import Moments
from zmask_export.errors import ShapeError

Array = NDArray[np.float32]


@st.composite
def batches(draw: st.DrawFn, most: int = 4) -> list[Array]:
    """Batches (N, C, H, W) of one number of channels and all other sizes free."""
    channels = draw(st.integers(1, 3))
    shape = st.tuples(st.integers(1, 3), st.just(channels), st.integers(1, 4), st.integers(1, 4))
    element = st.floats(-1000, 1000, width=32)
    array = shape.flatmap(lambda s: hnp.arrays(np.float32, s, elements=element))
    return draw(st.lists(array, min_size=1, max_size=most))


def _of(arrays: list[Array]) -> Moments:
    moments = Moments.empty(arrays[0].shape[1])
    for array in arrays:
        moments = moments.merge(Moments.of(torch.from_numpy(array)))
    return moments


def _values(arrays: list[Array]) -> NDArray[np.float64]:
    """All values of every channel, (C, n) float64."""
    flat = [a.transpose(1, 0, 2, 3).reshape(a.shape[1], -1) for a in arrays]
    return np.concatenate(flat, axis=1).astype(np.float64)


def _assert_equal(a: Moments, b: Moments, rtol: float = 1e-12) -> None:
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=rtol, atol=1e-11)
    np.testing.assert_allclose(a.m2, b.m2, rtol=rtol, atol=1e-8)


@settings(deadline=None)
@given(arrays=batches())
def test_batches_give_the_moments_of_all_their_values(arrays: list[Array]) -> None:
    moments, values = _of(arrays), _values(arrays)
    assert moments.count == values.shape[1]
    np.testing.assert_allclose(moments.mean, values.mean(1), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(moments.m2, values.var(1) * moments.count, rtol=1e-10, atol=1e-8)
    deviation = values.std(1)
    real = deviation > np.abs(values.mean(1)) * 1e-6 + 1e-4
    np.testing.assert_allclose(moments.std()[real], deviation[real], rtol=1e-6)


@settings(deadline=None)
@given(arrays=batches(most=6))
def test_merging_does_not_depend_on_the_grouping(arrays: list[Array]) -> None:
    forth, back = _of(arrays), _of(arrays[::-1])
    middle = len(arrays) // 2
    halves = [_of(half) for half in (arrays[:middle], arrays[middle:]) if half]
    joined = halves[0] if len(halves) == 1 else halves[0].merge(halves[1])
    _assert_equal(forth, back)
    _assert_equal(forth, joined)


@settings(deadline=None)
@given(
    value=st.floats(-(2.0**100), 2.0**100, width=32),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    merges=st.integers(1, 5),
)
def test_a_channel_that_never_varies_has_deviation_zero(
    value: float, shape: tuple[int, int, int], merges: int
) -> None:
    n, h, w = shape
    moments = _of([np.full((n, 1, h, w), value, np.float32)] * merges)
    assert moments.m2[0] == 0
    assert moments.std()[0] == 0
    assert moments.mean[0] == value


def test_a_small_deviation_around_a_large_mean_is_exact() -> None:
    rng = np.random.default_rng(0)
    # Steps of 1/16 around a million are exact in float32.
    steps = rng.integers(-40, 41, (4, 1, 50, 50))
    moments = _of([(1e6 + steps[i : i + 1] / 16).astype(np.float32) for i in range(4)])
    assert moments.std()[0] == pytest.approx((steps / 16).std(), rel=1e-9)
    assert moments.mean[0] == pytest.approx(1e6 + steps.mean() / 16, rel=1e-14)


def test_rounding_noise_counts_as_dead() -> None:
    noisy = np.float32(3e5) * (1 + np.array([0, 1e-8], np.float64)).reshape(1, 1, 1, 2)
    assert Moments.of(torch.from_numpy(noisy)).m2[0] > 0
    assert Moments.of(torch.from_numpy(noisy)).std()[0] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_batch_stays_as_it_is(dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 4, 5).to(dtype)
    before = x.clone()
    moments = Moments.of(x)
    assert torch.equal(x, before)
    np.testing.assert_allclose(moments.mean, x.double().mean((0, 2, 3)), rtol=1e-12)


def test_empty_moments_are_neutral() -> None:
    one = Moments.of(torch.rand(1, 2, 3, 3))
    empty = Moments.empty(2)
    assert empty.merge(one) is one
    assert one.merge(empty) is one
    assert empty.merge(Moments.empty(2)).count == 0
    np.testing.assert_array_equal(empty.std(), [0, 0])


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3, 4, 4), (1, 3, 0, 4)])
def test_what_is_no_batch_of_maps_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="N, C, H, W"):
        Moments.of(torch.zeros(shape))


def test_other_channels_do_not_merge() -> None:
    with pytest.raises(ShapeError, match="2 and 3 channels"):
        Moments.empty(2).merge(Moments.empty(3))


def test_values_that_are_not_finite_show() -> None:
    x = torch.zeros(1, 2, 2, 2)
    x[0, 1, 0, 1] = float("inf")
    np.testing.assert_array_equal(np.isfinite(Moments.of(x).m2), [True, False])

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zmask_export.data.scene import MIN_SIDE, draw_scene
from zmask_export.errors import ShapeError


@pytest.fixture(scope="module")
def scenes() -> NDArray[np.float64]:
    return np.stack([draw_scene((90, 120), seed) for seed in range(6)]).astype(np.float64)


@settings(max_examples=8, deadline=None)
@given(
    height=st.integers(MIN_SIDE, 150),
    width=st.integers(MIN_SIDE, 150),
    seed=st.integers(0, 2**40),
)
def test_any_size_and_seed_gives_an_rgb_image(height: int, width: int, seed: int) -> None:
    scene = draw_scene((height, width), seed)
    assert scene.shape == (height, width, 3)
    assert scene.dtype == np.uint8
    assert scene.flags.c_contiguous
    assert scene.std() > 10


@pytest.mark.parametrize("size", [(MIN_SIDE, 501), (333, MIN_SIDE), (65, 97)])
def test_long_and_odd_sizes(size: tuple[int, int]) -> None:
    assert draw_scene(size).shape == (*size, 3)


def test_same_size_and_seed_give_the_same_image() -> None:
    np.testing.assert_array_equal(draw_scene((70, 80), 7), draw_scene((70, 80), 7))


def test_seeds_differ(scenes: NDArray[np.float64]) -> None:
    for i, a in enumerate(scenes):
        for b in scenes[:i]:
            assert np.abs(a - b).mean() > 12


def test_a_seed_shows_the_same_street_at_any_size() -> None:
    small, large = (draw_scene(size, 3).astype(float) for size in ((120, 160), (240, 320)))
    shrunk = large.reshape(120, 2, 160, 2, 3).mean((1, 3))
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.9


def test_statistics_are_those_of_a_camera_image(scenes: NDArray[np.float64]) -> None:
    mean, sky, road = scenes.mean((0, 1, 2)), scenes[:, :12].mean(), scenes[:, -12:].mean()
    assert np.all((mean > 70) & (mean < 140))
    assert np.ptp(mean) < 20
    assert sky > 1.3 * road
    # A sensor leaves no flat areas: neighbours hardly ever agree over a whole row.
    assert (np.diff(scenes[:, -20:], axis=2) == 0).mean() < 0.4


@pytest.mark.parametrize("size", [(MIN_SIDE - 1, 200), (200, MIN_SIDE - 1), (0, 0)])
def test_too_small_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=f"{size[0]} x {size[1]}"):
        draw_scene(size)


def test_is_quick() -> None:
    start = time.process_time()
    draw_scene((360, 480), 1)
    assert time.process_time() - start < 1.0

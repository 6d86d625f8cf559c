from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch.nn import functional as F

from zmask_export.defense import fusion

PARAMETERS = torch.tensor([2.0, -0.5, 1.5, 0.25, 3.0, -1.0, 4.0, -0.5])


def maps(*rows: list[float]) -> torch.Tensor:
    """One image a row, each a map (1, 2, n / 2)."""
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), 1, 2, -1)


def image(side: int) -> torch.Tensor:
    """One grey image of a size."""
    return torch.full((1, 3, side, side), 0.5)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_soft_mask_of_one_pixel() -> None:
    g = sigmoid(1.5 * math.tanh(2.0 * 0.7 - 0.5) + 0.25)
    expected = sigmoid(4.0 * math.tanh(3.0 * g * 1.2 - 1.0) - 0.5)
    got = fusion.soft_mask(torch.full((1, 1, 1, 1), 1.2), torch.full((1, 1, 1, 1), 0.7), PARAMETERS)
    assert got.item() == pytest.approx(expected, rel=1e-6)
    gate = fusion.deep_gate(torch.full((1, 1, 1, 1), 0.7), PARAMETERS)
    assert gate.item() == pytest.approx(g, rel=1e-6)


def test_score_is_the_mean_product_weighted_by_the_mask() -> None:
    shallow, deep = maps([1.0, 2.0, 3.0, 4.0]), maps([2.0, 1.0, 0.0, 5.0])
    mask = maps([0.5, 1.0, 1.0, 0.0])
    assert fusion.score(shallow, deep, mask).tolist() == pytest.approx([(1 + 2 + 0) / 2.5])


def test_score_is_zero_where_the_mask_sums_to_zero() -> None:
    values, mask = maps([1e3] * 4, [2.0] * 4), maps([0.0] * 4, [1.0] * 4)
    assert fusion.score(values, values, mask).tolist() == [0.0, 4.0]


def test_every_image_has_the_sum_of_its_own_mask() -> None:
    values = maps([1.0, 3.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0])
    mask = maps([0.125, 0.375, 0.0, 0.0], [1.0, 1.0, 0.5, 0.5])  # one below 1, one above
    assert fusion.score(values, values, mask).tolist() == [7.0, 4.0]


def test_score_of_an_underflowing_soft_mask_is_zero() -> None:
    never = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -200.0])
    ones = torch.ones(1, 1, 3, 3)
    found = fusion.detect(image(3), ones, ones, never, torch.tensor(0.0))
    assert found.soft_mask.eq(0).all()
    assert found.score.item() == 0.0
    assert not found.flag.item()


def test_threshold_itself_is_not_flagged() -> None:
    shallow, deep = maps([1.0, 2.0, 3.0, 4.0]), maps([1.0] * 4)
    d = fusion.detect(image(2), shallow, deep, PARAMETERS, torch.tensor(0.0)).score[0]
    assert not fusion.detect(image(2), shallow, deep, PARAMETERS, d).flag.item()
    below = torch.nextafter(d, torch.tensor(0.0))
    assert fusion.detect(image(2), shallow, deep, PARAMETERS, below).flag.item()


def test_what_is_not_flagged_is_not_covered() -> None:
    high = torch.full((1, 1, 2, 2), 9.0)
    d = fusion.detect(image(2), high, high, PARAMETERS, torch.tensor(0.0)).score[0]
    assert fusion.detect(image(2), high, high, PARAMETERS, d).mask.eq(1).all()
    assert fusion.detect(image(2), high, high, PARAMETERS, d / 2).mask.eq(0).all()


def test_a_detection_holds_its_heatmaps_and_a_mask_of_the_image_s_shape() -> None:
    shallow, deep = maps([9.0, 0.0, 0.0, 0.0, 9.0, 0.0]), maps([9.0, 0.0, 0.0, 0.0, 8.0, 0.0])
    wide = torch.full((1, 3, 4, 6), 0.5)
    always = torch.tensor(-1.0)
    found = fusion.detect(wide, shallow, deep, PARAMETERS, always)
    assert torch.equal(found.shallow, shallow)
    assert torch.equal(found.deep, deep)
    covered = torch.zeros(1, 1, 4, 6)
    covered[..., :2, :2] = covered[..., 2:, 2:4] = 1
    assert torch.equal(found.mask, 1 - covered)
    # Within a reach of one cell the other two corners are those of the same patch.
    covered[..., 2:, :2] = covered[..., :2, 2:4] = 1
    found = fusion.detect(wide, shallow, deep, PARAMETERS, always, 1)
    assert torch.equal(found.mask, 1 - covered)


def test_a_mask_has_its_soft_mask_s_type() -> None:
    soft = maps([0.9, 0.1, 0.2, 0.6])
    for dtype in (torch.float32, torch.float64):
        assert fusion.keep_mask(soft.to(dtype), torch.tensor([True]), (4, 4)).dtype == dtype


def test_nan_is_flagged_and_covers_nothing() -> None:
    nan = torch.full((1, 1, 2, 2), torch.nan)
    found = fusion.detect(image(4), nan, nan, PARAMETERS, torch.tensor(0.0))
    assert found.flag.item()
    assert found.mask.eq(1).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_image_that_is_not_finite_is_flagged_and_covers_nothing(value: float) -> None:
    high = torch.full((2, 1, 2, 2), 9.0)
    images = image(4).repeat(2, 1, 1, 1)
    images[0, 1, 2, 3] = value
    found = fusion.detect(images, high, high, PARAMETERS, torch.tensor(1.0))
    assert found.score[0].isnan()
    assert found.score[1] > 1
    assert found.flag.all()
    assert found.mask[0].eq(1).all()
    assert found.mask[1].eq(0).all()


def test_only_flagged_images_are_covered() -> None:
    soft = maps([0.9, 0.1, 0.2, 0.6], [0.9, 0.9, 0.9, 0.9])
    mask = fusion.keep_mask(soft, torch.tensor([True, False]), (2, 2))
    assert mask[0].flatten().tolist() == [0.0, 1.0, 1.0, 0.0]
    assert mask[1].eq(1).all()


def test_a_half_is_kept() -> None:
    soft = torch.tensor([0.5, math.nextafter(0.5, 1) + 1e-7]).reshape(1, 1, 1, 2)
    mask = fusion.keep_mask(soft, torch.tensor([True]), (1, 2))
    assert mask.flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("grid", "size"), [((5, 7), (15, 35)), ((4, 6), (8, 12)), ((3, 5), (7, 11)), ((9, 9), (3, 3))]
)
def test_mask_grows_by_nearest_neighbour(grid: tuple[int, int], size: tuple[int, int]) -> None:
    soft = torch.rand(2, 1, *grid, generator=torch.manual_seed(5))
    mask = fusion.keep_mask(soft, torch.tensor([True, True]), size)
    expected = F.interpolate((soft <= 0.5).float(), size=size, mode="nearest-exact")
    assert torch.equal(mask, expected)


def test_the_corner_of_two_straight_edges_is_covered() -> None:
    covered = torch.zeros(1, 1, 7, 9, dtype=torch.bool)
    covered[..., 2:5, 3:6] = True
    covered[..., 1, 4] = covered[..., 3, 6] = True  # the edges bulge in their middles
    filled = fusion.fill_corners(covered, 4)
    expected = torch.zeros_like(covered)
    expected[..., 1:5, 3:7] = True
    assert torch.equal(filled, expected)


def test_corners_beyond_reach_and_other_images_stay() -> None:
    covered = torch.zeros(2, 1, 9, 9, dtype=torch.bool)
    covered[0, 0, 0, 8] = covered[0, 0, 6, 0] = True
    assert torch.equal(fusion.fill_corners(covered, 7), covered)
    reached = fusion.fill_corners(covered, 8)
    assert reached[0, 0, 6, 8].item()
    assert not reached[1].any()


@given(
    arrays(bool, st.tuples(st.integers(1, 2), st.just(1), st.integers(1, 9), st.integers(1, 9))),
    st.integers(0, 12),
)
def test_filled_corners_equal_a_search_by_loops(covered: NDArray[np.bool_], reach: int) -> None:
    expected = np.zeros_like(covered)
    for n, _, r, c in np.ndindex(covered.shape):
        row = covered[n, 0, r, max(0, c - reach) : c + reach + 1]
        column = covered[n, 0, max(0, r - reach) : r + reach + 1, c]
        expected[n, 0, r, c] = row.any() and column.any()
    filled = fusion.fill_corners(torch.from_numpy(covered), reach).numpy()
    np.testing.assert_array_equal(filled, expected)
    assert (filled >= covered).all()


def test_mask_is_binary() -> None:
    soft = torch.rand(1, 1, 13, 17)
    mask = fusion.keep_mask(soft, torch.tensor([True]), (48, 64))
    assert set(mask.unique().tolist()) == {0.0, 1.0}

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from zmask_export.defense.matrices import box_matrix, resize_matrix, stage_matrices
from zmask_export.defense.pooling import additions, average_pool, resize, stage
from zmask_export.spec import Registration

REGISTRATIONS: tuple[Registration, ...] = ("paper", "aligned")


def clipped_mean(x: NDArray[np.float64], kernel: tuple[int, int]) -> NDArray[np.float64]:
    """Mean over a window that reaches (k - 1) // 2 back and k // 2 ahead, pixels inside only."""
    kh, kw = kernel
    out = np.zeros_like(x)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            rows = [i for i in range(r - (kh - 1) // 2, r + kh // 2 + 1) if 0 <= i < x.shape[0]]
            columns = [j for j in range(c - (kw - 1) // 2, c + kw // 2 + 1) if 0 <= j < x.shape[1]]
            out[r, c] = np.mean([x[i, j] for i in rows for j in columns])
    return out


@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (3, 2), (4, 4), (7, 9), (7, 1)])
def test_paper_pooling_equals_the_two_dimensional_call(kernel: tuple[int, int]) -> None:
    x = torch.rand(2, 3, 7, 9, dtype=torch.float64, generator=torch.manual_seed(0))
    expected = F.avg_pool2d(x, kernel, stride=1)
    torch.testing.assert_close(average_pool(x, kernel, "paper"), expected, rtol=1e-13, atol=0)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_aligned_pooling_equals_loops(data: st.DataObject) -> None:
    h, w = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    kernel = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    x = np.random.default_rng(data.draw(st.integers(0, 999))).normal(size=(h, w))
    got = average_pool(torch.from_numpy(x)[None, None], kernel, "aligned")[0, 0].numpy()
    np.testing.assert_allclose(got, clipped_mean(x, kernel), rtol=1e-12, atol=1e-14)
    matrices = box_matrix(h, kernel[0], "aligned") @ x @ box_matrix(w, kernel[1], "aligned").T
    np.testing.assert_allclose(matrices, clipped_mean(x, kernel), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kernel", [(4, 6), (6, 6), (1, 2)])
def test_aligned_pooling_of_a_constant_is_that_constant_up_to_the_border(
    kernel: tuple[int, int],
) -> None:
    pooled = average_pool(torch.full((1, 1, 6, 6), 3.0), kernel, "aligned")
    assert pooled.shape == (1, 1, 6, 6)
    torch.testing.assert_close(pooled, torch.full((1, 1, 6, 6), 3.0))


@pytest.mark.parametrize("registration", REGISTRATIONS)
def test_one_pixel_map_fills_the_grid(registration: Registration) -> None:
    out = stage(torch.full((1, 2, 1, 1), -2.5), (3, 4), (5, 6), registration)
    torch.testing.assert_close(out, torch.full((1, 2, 5, 6), -2.5))


def test_resize_to_the_same_size_changes_nothing() -> None:
    x = torch.rand(1, 2, 4, 5)
    assert resize(x, (4, 5)) is x


@settings(max_examples=60, deadline=None)
@given(size_in=st.integers(1, 40), size_out=st.integers(1, 40))
def test_resize_matrix_equals_interpolation(size_in: int, size_out: int) -> None:
    x = torch.eye(size_in, dtype=torch.float64)[None, None]
    expected = F.interpolate(x, size=(size_out, size_in), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize_matrix(size_in, size_out), expected[0, 0], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_row_of_a_stage_sums_to_one(data: st.DataObject) -> None:
    grid, size_in = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
    kernel = data.draw(st.integers(1, grid))
    matrix = stage_matrices(size_in, kernel, grid, data.draw(st.sampled_from(REGISTRATIONS)))
    assert matrix.shape == (grid, size_in)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-12)


def test_stage_matrices_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        stage_matrices(5, 2, 7, "paper")[0, 0] = 1.0


@pytest.mark.parametrize("registration", REGISTRATIONS)
def test_stage_equals_its_two_matrices(registration: Registration) -> None:
    z = torch.randn(1, 2, 5, 8, dtype=torch.float64, generator=torch.manual_seed(3))
    rows = torch.tensor(stage_matrices(5, 4, 9, registration))
    columns = torch.tensor(stage_matrices(8, 3, 7, registration))
    expected = stage(z, (4, 3), (9, 7), registration)
    torch.testing.assert_close(rows @ z @ columns.T, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "registration", "expected"),
    [
        ((2, 3), "paper", 4 * 5 * 2 * 3),  # 4 x 5 windows lie in 5 x 7 cells
        ((2, 3), "aligned", 5 * 7 * 2 * 3),
        ((5, 7), "paper", 5 * 7),
        ((1, 1), "paper", 5 * 7),
    ],
)
def test_a_stage_adds_every_cell_of_every_window(
    kernel: tuple[int, int], registration: Registration, expected: int
) -> None:
    assert additions(kernel, (5, 7), registration) == expected

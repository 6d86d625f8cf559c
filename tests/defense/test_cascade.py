from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.defense.cascade import BLOCK, deployed_heatmap, literal_heatmap
from zmask_export.defense.pooling import stage
from zmask_export.spec import Registration, Size

REGISTRATIONS: tuple[Registration, ...] = ("paper", "aligned")
FORMS = [literal_heatmap, deployed_heatmap]
KERNELS: tuple[Size, ...] = ((4, 5), (2, 3), (3, 1))
GRID: Size = (6, 8)

Map = NDArray[np.float64]


def bilinear(x: Map, size: Size) -> Map:
    """Half-pixel centres, pixel by pixel."""
    out = np.zeros(size)
    for r in range(size[0]):
        for c in range(size[1]):
            y = min(max((r + 0.5) * x.shape[0] / size[0] - 0.5, 0), x.shape[0] - 1)
            u = min(max((c + 0.5) * x.shape[1] / size[1] - 0.5, 0), x.shape[1] - 1)
            for i in range(x.shape[0]):
                for j in range(x.shape[1]):
                    out[r, c] += max(0, 1 - abs(y - i)) * max(0, 1 - abs(u - j)) * x[i, j]
    return out


def window_mean(x: Map, kernel: Size, registration: Registration) -> Map:
    kh, kw = kernel
    if registration == "paper":
        starts = [(r, c) for r in range(len(x) - kh + 1) for c in range(x.shape[1] - kw + 1)]
        values = [x[r : r + kh, c : c + kw].mean() for r, c in starts]
        return np.array(values).reshape(len(x) - kh + 1, -1)
    out = np.zeros_like(x)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            top, left = max(r - (kh - 1) // 2, 0), max(c - (kw - 1) // 2, 0)
            out[r, c] = x[top : r + kh // 2 + 1, left : c + kw // 2 + 1].mean()
    return out


def heatmap_by_loops(
    z: Map, kernels: tuple[Size, ...], grid: Size, registration: Registration
) -> Map:
    """Eq. 3 for one image (C, h, w), a channel at a time."""
    a = [np.ones(grid) for _ in z]
    for kernel in kernels:
        largest = max(np.abs(m).max() for m in a)
        for channel in range(len(z)):
            pooled = window_mean(bilinear(z[channel], grid), kernel, registration)
            scaled = a[channel] / largest if largest > 0 else 0 * a[channel]
            a[channel] = bilinear(pooled, grid) * scaled
    return np.mean([np.abs(m) for m in a], axis=0)


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("registration", REGISTRATIONS)
@pytest.mark.parametrize("kernels", [KERNELS, ((6, 8),), ((2, 2), (6, 8))])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 9, 11), (1, 1, 1, 1)])
def test_both_forms_equal_equation_three_by_loops(
    form, registration: Registration, kernels: tuple[Size, ...], shape: tuple[int, ...]
) -> None:
    z = drawn(shape)
    got = form(z, kernels, GRID, registration).numpy()
    assert got.shape == (shape[0], 1, *GRID)
    for index in range(shape[0]):
        expected = heatmap_by_loops(z[index].numpy(), kernels, GRID, registration)
        np.testing.assert_allclose(got[index, 0], expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_deployed_equals_literal(data: st.DataObject) -> None:
    side = st.integers(1, 12)
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2 * BLOCK + 1)))
    shape += (data.draw(side), data.draw(side))
    grid = data.draw(st.tuples(side, side))
    kernel = st.tuples(st.integers(1, grid[0]), st.integers(1, grid[1]))
    kernels = tuple(data.draw(st.lists(kernel, min_size=1, max_size=4)))
    registration = data.draw(st.sampled_from(REGISTRATIONS))
    exact = drawn(shape, data.draw(st.integers(0, 999))) * 3
    # What is averaged may cancel: what is left of it is as uncertain as what was summed.
    for z, relative, absolute in ((exact, 1e-10, 1e-14), (exact.float(), 1e-5, 3e-7)):
        literal = literal_heatmap(z, kernels, grid, registration)
        deployed = deployed_heatmap(z, kernels, grid, registration)
        worst = (literal - deployed).abs().amax(dim=(1, 2, 3))
        largest, summed = literal.amax(dim=(1, 2, 3)), z.abs().amax(dim=(1, 2, 3))
        assert (worst <= relative * largest + absolute * summed).all()


@pytest.mark.parametrize("registration", REGISTRATIONS)
def test_the_norms_telescope(registration: Registration) -> None:
    z = drawn((2, 5, 4, 7))
    products = [stage(z, kernel, GRID, registration) for kernel in KERNELS]
    before, last = products[0] * products[1], products[0] * products[1] * products[2]
    expected = (last / before.abs().amax(dim=(1, 2, 3), keepdim=True)).abs().mean(1, keepdim=True)
    got = literal_heatmap(z, KERNELS, GRID, registration)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factor", [1e-3, -2.0, 1e3])
def test_heatmap_scales_with_the_magnitude_of_z(form, factor: float) -> None:
    z = drawn((1, 3, 5, 5))
    got = form(z * factor, KERNELS, GRID, "aligned")
    torch.testing.assert_close(got, abs(factor) * form(z, KERNELS, GRID, "aligned"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("registration", REGISTRATIONS)
@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (1, 3, 1, 1)])
def test_zero_gives_exactly_zero(form, registration: Registration, shape: tuple[int, ...]) -> None:
    assert form(torch.zeros(shape), KERNELS, GRID, registration).eq(0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("registration", REGISTRATIONS)
@pytest.mark.parametrize("shape", [(1, 2, 5, 6), (1, 2, 1, 1)])
def test_constant_gives_that_constant(
    form, registration: Registration, shape: tuple[int, ...]
) -> None:
    got = form(torch.full(shape, -4.0), KERNELS, GRID, registration)
    torch.testing.assert_close(got, torch.full((1, 1, *GRID), 4.0))


@pytest.mark.parametrize("form", FORMS)
def test_an_image_does_not_depend_on_its_batch(form) -> None:
    z = drawn((3, 20, 5, 6)).float() * torch.tensor([1e-3, 1.0, 1e4])[:, None, None, None]
    together = form(z, KERNELS, GRID, "aligned")
    for index in range(3):
        alone = form(z[index : index + 1], KERNELS, GRID, "aligned")
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_nan_stays_in_its_image(form) -> None:
    z = drawn((3, 20, 5, 6)).float()
    clean = form(z, KERNELS, GRID, "paper")
    z[1, 7, 2, 3] = torch.nan
    got = form(z, KERNELS, GRID, "paper")
    torch.testing.assert_close(got[[0, 2]], clean[[0, 2]])
    assert not torch.equal(got[1], clean[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("registration", REGISTRATIONS)
@pytest.mark.parametrize("kernels", [KERNELS, KERNELS[:1]])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_not_taken_for_silence(
    form, value: float, kernels: tuple[Size, ...], registration: Registration
) -> None:
    z = drawn((2, 20, 5, 6)).float()
    z[1, 7, 2, 3] = value
    got = form(z, kernels, GRID, registration)
    assert not got[1].isfinite().all()
    assert got[0].isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_an_overflow_in_a_stage_is_not_forgotten_by_the_next_ones(form) -> None:
    z = drawn((2, 3, *GRID)).float()
    z[1] = 3e38  # one cell is a number, the sum of four is none
    got = form(z, ((2, 2), (1, 1), (1, 1)), GRID, "paper")
    assert not got[1].isfinite().all()
    assert got[0].isfinite().all()


def test_where_a_stage_cancels_out_nothing_is_left() -> None:
    z = torch.ones(1, 2, *GRID)
    z[..., ::2] = -1
    assert literal_heatmap(z, ((6, 8), (1, 1)), GRID, "paper").eq(0).all()


@pytest.mark.parametrize("form", FORMS)
def test_zero_has_a_finite_gradient(form) -> None:
    z = torch.zeros(1, 3, 5, 6, requires_grad=True)
    form(z, KERNELS, GRID, "aligned").sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("registration", REGISTRATIONS)
@pytest.mark.parametrize("kernels", [KERNELS, KERNELS[:2], KERNELS[:1]])
def test_both_forms_have_the_same_gradient(
    kernels: tuple[Size, ...], registration: Registration
) -> None:
    weights = drawn((2, 1, *GRID), seed=1)
    gradients = []
    for form in FORMS:
        # More than one block of channels, the largest value in the last.
        z = drawn((2, 2 * BLOCK + 1, 4, 5))
        z[:, -1] *= 3
        z.requires_grad_(True)
        (weights * form(z, kernels, GRID, registration)).sum().backward()
        gradients.append(z.grad)
    assert gradients[0] is not None
    assert float(gradients[0].norm()) > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_heatmap_is_computed_where_and_as_its_activations_are(form, dtype: torch.dtype) -> None:
    for device in ("cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])):
        z = drawn((2, 3, 4, 5)).to(device, dtype)
        got = form(z, KERNELS, GRID, "aligned")
        assert (got.shape, got.dtype, got.device) == ((2, 1, *GRID), dtype, z.device)

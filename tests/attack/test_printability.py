from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zmask_export.attack import printability
from zmask_export.attack.printability import log_non_printability


def _product(patch: Tensor, palette: Tensor) -> Tensor:
    """L_N as Eq. 10 has it: the plain product, averaged."""
    pixels = patch.double().flatten(1).T
    distance = (pixels[:, None] - palette.double()).square().sum(2).sqrt()
    return distance.prod(1).mean()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    colours=st.integers(1, 30),
    side=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_it_is_the_logarithm_of_the_averaged_product(
    seed: int, colours: int, side: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    patch = torch.rand(3, *side, generator=generator).requires_grad_(True)
    palette = torch.rand(colours, 3, generator=generator)
    plain = _product(patch, palette)
    ours = log_non_printability(patch, palette)
    expected_value = math.log(float(plain.detach()))
    assert float(ours.detach()) == pytest.approx(expected_value, rel=1e-6, abs=1e-9)
    gradient, expected = (torch.autograd.grad(v, patch)[0] for v in (ours, plain))
    torch.testing.assert_close(
        gradient / gradient.norm(), expected / expected.norm(), rtol=1e-3, atol=1e-5
    )


def test_the_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    patch = torch.rand(3, 4, 5, generator=generator, dtype=torch.double).requires_grad_(True)
    palette = torch.rand(7, 3, generator=generator)
    assert torch.autograd.gradcheck(lambda p: log_non_printability(p, palette), (patch,))


def test_one_colour_gives_the_mean_distance() -> None:
    patch = torch.zeros(3, 1, 2)
    patch[:, 0, 0] = torch.tensor([0.3, 0.0, 0.4])
    patch[0, 0, 1] = 1
    score = log_non_printability(patch, torch.zeros(1, 3))
    assert math.exp(score) == pytest.approx((0.5 + 1) / 2, rel=1e-6)


def test_a_printable_pixel_counts_as_zero_and_pulls_nothing() -> None:
    palette = torch.tensor([[0.2, 0.4, 0.6], [0.9, 0.1, 0.5]])
    patch = torch.rand(3, 2, 2)
    patch[:, 0, 0] = palette[1]
    patch.requires_grad_(True)
    score = log_non_printability(patch, palette)
    product = float(_product(patch, palette).detach())
    assert math.exp(score.detach()) == pytest.approx(product, rel=1e-6)
    (gradient,) = torch.autograd.grad(score, patch)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, 0, 0] == 0).all()
    assert (gradient[:, 1, 1] != 0).any()


def test_a_printable_patch_has_no_gradient() -> None:
    palette = torch.tensor([[0.2, 0.4, 0.6], [0.9, 0.1, 0.5]])
    patch = palette.T[:, [[0, 1, 1], [1, 0, 0]]].clone().requires_grad_(True)
    score = log_non_printability(patch, palette)
    assert float(score.detach()) == -math.inf
    assert (torch.autograd.grad(score, patch)[0] == 0).all()


def test_a_product_that_underflows_still_pulls() -> None:
    """256 colours around grey: the product is far below what a float64 holds."""
    rng = np.random.default_rng(0)
    palette = torch.from_numpy(0.5 + 0.02 * rng.random((256, 3), dtype=np.float32))
    patch = torch.full((3, 2, 2), 0.49).requires_grad_(True)
    assert float(_product(patch, palette).detach()) == 0
    score = log_non_printability(patch, palette)
    assert -1500 < float(score.detach()) < -700
    (gradient,) = torch.autograd.grad(score, patch)
    assert gradient.norm() > 1
    assert log_non_printability(patch - 1e-4 * gradient / gradient.norm(), palette) < score


def test_the_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = torch.rand(3, 9, 11).requires_grad_(True)
    palette = torch.rand(5, 3)
    results = []
    for chunk in (4096, 7):
        monkeypatch.setattr(printability, "CHUNK", chunk)
        score = log_non_printability(patch, palette)
        results.append((score, torch.autograd.grad(score, patch)[0]))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zmask_export.attack.directions import unit
from zmask_export.attack.losses import (
    class_balance,
    pixel_losses,
    segmentation_loss,
    smoothness,
)
from zmask_export.data.segmentation import IGNORE


def _by_hand(logits: Tensor, labels: Tensor, outside: Tensor, weights: Tensor) -> float:
    """The loss, pixel by pixel."""
    right, wrong = [], []
    n, _, h, w = logits.shape
    for k in range(n):
        for i in range(h):
            for j in range(w):
                label = int(labels[k, i, j])
                if label == IGNORE or not outside[k, i, j]:
                    continue
                values = [float(v) for v in logits[k, :, i, j]]
                ce = math.log(sum(math.exp(v) for v in values)) - values[label]
                ce *= float(weights[label])
                hit = values.index(max(values)) == label
                (right if hit else wrong).append(ce)
    total = len(right) + len(wrong)
    if not total:
        return 0.0
    gamma = len(right) / total
    return (gamma * sum(right) + (1 - gamma) * sum(wrong)) / total


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 2), st.integers(2, 4), st.integers(1, 4), st.integers(1, 4)),
    hidden=st.floats(0, 1),
    weighted=st.booleans(),
)
def test_the_loss_is_that_of_a_loop_over_pixels(
    seed: int, shape: tuple[int, int, int, int], hidden: float, weighted: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    logits = torch.randn(shape, generator=generator) * 2
    labels = torch.randint(0, c, (n, h, w), generator=generator)
    labels[torch.rand(n, h, w, generator=generator) < hidden / 2] = IGNORE
    outside = torch.rand(n, h, w, generator=generator) >= hidden
    weights = torch.rand(c, generator=generator) + 0.1 if weighted else torch.ones(c)
    loss = float(segmentation_loss(logits, labels, outside, weights if weighted else None))
    assert loss == pytest.approx(_by_hand(logits, labels, outside, weights), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 11, 19])
def test_uniform_logits_give_the_logarithm_of_the_classes(classes: int) -> None:
    labels = torch.zeros(1, 3, 4, dtype=torch.long)
    loss = segmentation_loss(torch.zeros(1, classes, 3, 4), labels, labels == 0)
    assert float(loss) == pytest.approx(math.log(classes), rel=1e-6)


def test_the_share_still_right_weighs_the_two_sums() -> None:
    labels = torch.tensor([[[0, 0, 0, 1]]])  # uniform logits choose class 0
    loss = segmentation_loss(torch.zeros(1, 2, 1, 4), labels, labels >= 0)
    assert float(loss) == pytest.approx((0.75 * 3 + 0.25 * 1) * math.log(2) / 4, rel=1e-6)


def test_right_and_wrong_pixels_are_told_apart() -> None:
    labels = torch.tensor([[[0, 0, 0, 1, IGNORE]]])  # uniform logits choose class 0
    outside = torch.tensor([[[True, True, False, True, True]]])
    pixels = pixel_losses(torch.zeros(1, 4, 1, 5), labels, outside)
    assert float(pixels.right) == pytest.approx(2 * math.log(4))
    assert float(pixels.wrong) == pytest.approx(math.log(4))
    assert float(pixels.share) == pytest.approx(2 / 3)
    assert int(pixels.count) == 3


def test_unlabelled_pixels_and_the_patch_do_not_count() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (1, 4, 4))
    labels[0, 0] = IGNORE
    outside = torch.ones(1, 4, 4, dtype=torch.bool)
    outside[0, 1] = False
    segmentation_loss(logits, labels, outside).backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, :2] == 0).all()
    assert (logits.grad[:, :, 2:] != 0).any(1).all()


def test_no_pixel_that_counts_gives_zero_and_a_gradient_of_zero() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    for labels, outside in (
        (torch.full((1, 2, 2), IGNORE), torch.ones(1, 2, 2, dtype=torch.bool)),
        (torch.zeros(1, 2, 2, dtype=torch.long), torch.zeros(1, 2, 2, dtype=torch.bool)),
    ):
        loss = segmentation_loss(logits, labels, outside)
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, logits)
        assert (gradient == 0).all()


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 2, 300, 300, dtype=torch.bfloat16)
    labels = torch.zeros(1, 300, 300, dtype=torch.long)
    loss = segmentation_loss(logits, labels, labels == 0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log(2), rel=1e-5)


def test_balanced_classes_weigh_the_same_in_all() -> None:
    first, second = np.zeros((4, 5), np.uint8), np.full((4, 5), 2, np.uint8)
    first[0] = IGNORE
    first[1, 0] = 3
    weights = class_balance([first, second], 5)
    assert weights.dtype == torch.float32
    counts = torch.tensor([14, 0, 20, 1, 0])
    mass = weights * counts
    assert mass[[0, 2, 3]].tolist() == pytest.approx([35 / 3] * 3)
    assert weights[[1, 4]].tolist() == [0, 0]


def test_classes_that_are_balanced_already_weigh_one() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    assert class_balance([labels, labels], 3).tolist() == pytest.approx([1, 1, 1])
    assert class_balance([np.full((2, 2), IGNORE, np.uint8)], 3).tolist() == [0, 0, 0]


def test_smoothness_of_closed_cases() -> None:
    assert float(smoothness(torch.full((3, 4, 5), 0.7))) == 0
    step = torch.zeros(3, 4, 5)
    step[:, :, 2:] = 0.5
    assert float(smoothness(step)) == pytest.approx(3 * 4 * 0.25)
    dot = torch.zeros(1, 3, 3)
    dot[0, 1, 1] = 2
    assert float(smoothness(dot)) == 4 * 4


def test_the_gradient_of_smoothness_is_that_of_finite_differences() -> None:
    patch = torch.rand(3, 4, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(smoothness, (patch,))


def test_unit_keeps_the_direction() -> None:
    v = torch.tensor([[3.0, 0.0], [0.0, -4.0]])
    torch.testing.assert_close(unit(v), v / 5)
    assert torch.equal(unit(torch.zeros(2, 2)), torch.zeros(2, 2))
    assert unit(torch.tensor([1.0, torch.nan])).isnan().all()

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.attack.conftest import SIZE
from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.overactivation import OverActivation, over_activation
from zmask_export.attack.scene import Scene


def _mask(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[0, top:bottom, left:right] = True
    return mask


def _by_hand(z: Tensor, mask: Tensor) -> float:
    """Eq. 14 of one layer and one image as written, the mask's share of every cell counted."""
    _, channels, h, w = z.shape
    rows, columns = mask.shape[1] // h, mask.shape[2] // w
    share = [
        [float(mask[0, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].float().mean())
         for j in range(w)]
        for i in range(h)
    ]  # fmt: skip
    total = sum(map(sum, share))
    sums = [
        abs(sum(float(z[0, c, i, j]) * share[i][j] for i in range(h) for j in range(w)))
        for c in range(channels)
    ]
    return sum(sums) / (total * channels)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    corner=st.tuples(st.integers(0, 11), st.integers(0, 15)),
    side=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_it_is_the_equation_as_written(
    seed: int, corner: tuple[int, int], side: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(1, 3, 6, 8, generator=generator) for _ in range(2)]
    layers.append(torch.randn(1, 5, 3, 4, generator=generator))
    mask = _mask((12, 16), *corner, corner[0] + side[0], corner[1] + side[1])
    expected = sum(_by_hand(z, mask) for z in layers) / 3
    assert float(over_activation(layers, mask)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_constant_layer_gives_its_value_under_any_patch() -> None:
    z = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 5, 7)
    for corners in ((0, 0, 1, 1), (3, 4, 17, 20), (0, 0, 20, 28)):
        assert float(over_activation([z], _mask((20, 28), *corners))) == pytest.approx(2.5)


def test_opposite_neurons_of_a_channel_cancel_and_channels_do_not() -> None:
    z = torch.zeros(1, 2, 4, 4)
    z[0, :, 0, 0], z[0, :, 0, 1] = 1, -1
    assert float(over_activation([z], _mask((4, 4), 0, 0, 1, 2))) == 0
    z[0, 0, 0, 1], z[0, 1, 0, 0] = 1, -1
    assert float(over_activation([z], _mask((4, 4), 0, 0, 1, 2))) == 1


def test_images_and_layers_count_the_same() -> None:
    masks = torch.cat([_mask((8, 8), 0, 0, 2, 2), _mask((8, 8), 1, 1, 8, 8)])
    first, second = torch.ones(2, 3, 4, 4), torch.full((2, 50, 2, 2), 5.0)
    first[1] = 3
    assert float(over_activation([first, second], masks)) == pytest.approx((2 + 5) / 2)


def test_only_what_lies_under_the_patch_has_a_gradient() -> None:
    z = torch.randn(1, 2, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(over_activation([z], _mask((16, 16), 4, 4, 8, 10)), z)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:4, 2:5] = True
    assert (gradient[0][:, inside] != 0).all()
    assert (gradient[0][:, ~inside] == 0).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    z = torch.randn(2, 3, 5, 6, dtype=torch.double, requires_grad=True)
    masks = torch.cat([_mask((10, 12), 1, 2, 6, 9), _mask((10, 12), 0, 0, 3, 3)])
    assert torch.autograd.gradcheck(lambda v: over_activation([v], masks), (z,))


def test_a_calibration_s_statistics_make_the_scores(scene: Scene, calibration: Calibration) -> None:
    loss = OverActivation(calibration)
    assert loss.taps == ("near",)
    mean, std = (torch.from_numpy(t["near"]) for t in (calibration.mean, calibration.std))
    z = (scene.features["near"] - mean[:, None, None]) / std.clamp(min=1e-9)[:, None, None]
    z[:, std == 0] = 0
    assert (std == 0).any()
    expected = over_activation([z], scene.masks)
    torch.testing.assert_close(loss(scene), expected)
    assert scene.masks.shape[1:] == SIZE


def test_half_precision_activations_are_scored_in_float32(
    scene: Scene, calibration: Calibration
) -> None:
    half = {tap: value.bfloat16() for tap, value in scene.features.items()}
    loss = OverActivation(calibration)(replace(scene, features=half))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(OverActivation(calibration)(scene)), rel=0.02)

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.defense.baselines.fpda import Fpda
from zmask_export.defense.baselines.hyperneuron import HyperNeuron
from zmask_export.errors import ShapeError

C, H, W = 3, 4, 5


def _detectors(seed: int) -> tuple[HyperNeuron, Fpda, Tensor]:
    """Both detectors with statistics of their own, and three images' activations."""
    generator = torch.Generator().manual_seed(seed)
    hyperneuron = HyperNeuron(
        torch.randn(C, H, W, generator=generator), torch.rand(C, H, W, generator=generator) + 0.1
    )
    fpda = Fpda(torch.randn(H, W, generator=generator), torch.rand(H, W, generator=generator) + 0.1)
    return hyperneuron, fpda, torch.randn(3, C, H, W, generator=generator)


def _by_loops(
    h: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64], positive: bool
) -> float:
    total = 0.0
    for index in np.ndindex(h.shape):
        z = 0.0 if std[index] == 0 else (h[index] - mean[index]) / std[index]
        total += max(z, 0.0) if positive else abs(z)
    return total / h.size


@pytest.mark.parametrize("positive", [False, True])
def test_scores_are_those_of_explicit_loops(positive: bool) -> None:
    hyperneuron, fpda, h = _detectors(0)
    hyperneuron.std[1, 2, 3] = 0
    fpda.std[2, 1] = 0
    fpda.positive = positive
    for index, image in enumerate(h.double().numpy()):
        expected = _by_loops(
            image, hyperneuron.mean.double().numpy(), hyperneuron.std.double().numpy(), False
        )
        assert hyperneuron(h)[index].item() == pytest.approx(expected, rel=1e-5)
        compressed = image.sum(axis=0) / C
        expected = _by_loops(
            compressed, fpda.mean.double().numpy(), fpda.std.double().numpy(), positive
        )
        assert fpda(h)[index].item() == pytest.approx(expected, rel=1e-5)


def test_activations_at_their_mean_score_zero() -> None:
    hyperneuron, fpda, _ = _detectors(1)
    torch.testing.assert_close(hyperneuron(hyperneuron.mean[None]), torch.zeros(1))
    h = fpda.mean.expand(1, C, H, W)
    torch.testing.assert_close(fpda(h), torch.zeros(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigmas", [-6.0, 6.0])
def test_one_hot_neuron_scores_its_share(sigmas: float) -> None:
    hyperneuron = HyperNeuron(torch.zeros(C, H, W), torch.full((C, H, W), 2.0))
    fpda = Fpda(torch.zeros(H, W), torch.full((H, W), 2.0))
    h = torch.zeros(1, C, H, W)
    h[0, 1, 2, 3] = 2.0 * sigmas
    assert hyperneuron(h).item() == pytest.approx(abs(sigmas) / (C * H * W))
    assert fpda(h).item() == pytest.approx(abs(sigmas) / C / (H * W))
    fpda.positive = True
    assert fpda(h).item() == pytest.approx(max(sigmas, 0) / C / (H * W))


def test_only_hyperneuron_sees_channels_that_cancel() -> None:
    h = torch.zeros(1, 2, H, W)
    h[0, 0], h[0, 1] = 5.0, -5.0
    assert HyperNeuron(torch.zeros(2, H, W), torch.ones(2, H, W))(h).item() == pytest.approx(5)
    assert Fpda(torch.zeros(H, W), torch.ones(H, W))(h).item() == 0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 10), offset=st.floats(-5, 5))
def test_scores_have_no_unit(seed: int, factor: float, offset: float) -> None:
    hyperneuron, fpda, h = _detectors(seed)
    moved = [
        type(d)(d.mean * factor + offset, d.std * factor)(h * factor + offset)
        for d in (hyperneuron, fpda)
    ]
    torch.testing.assert_close(moved[0], hyperneuron(h), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved[1], fpda(h), rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), factor=st.floats(0, 20))
def test_scores_grow_with_the_distance_from_the_mean(seed: int, factor: float) -> None:
    hyperneuron, fpda, h = _detectors(seed)
    further = hyperneuron(hyperneuron.mean + factor * (h - hyperneuron.mean))
    torch.testing.assert_close(further, factor * hyperneuron(h), rtol=1e-4, atol=1e-4)
    further = fpda(fpda.mean + factor * (h - fpda.mean))
    torch.testing.assert_close(further, factor * fpda(h), rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_over_and_under_activation_make_up_the_score(seed: int) -> None:
    _, fpda, h = _detectors(seed)
    over = Fpda(fpda.mean, fpda.std, positive=True)
    under = Fpda(-fpda.mean, fpda.std, positive=True)
    torch.testing.assert_close(over(h) + under(-h), fpda(h))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), value=st.sampled_from([1e6, float("nan"), float("inf")]))
def test_an_image_scores_the_same_whatever_stands_beside_it(seed: int, value: float) -> None:
    for detector in _detectors(seed)[:2]:
        h = _detectors(seed)[2]
        alone = detector(h[1:2])
        h[0, 0, 0, 0] = value
        scores = detector(h)
        torch.testing.assert_close(scores[1:2], alone, rtol=1e-6, atol=0)
        assert bool(torch.isfinite(scores[0])) == np.isfinite(value)


def test_neurons_that_never_varied_count_as_zero() -> None:
    h = torch.full((1, C, H, W), 7.0)
    hyperneuron = HyperNeuron(torch.zeros(C, H, W), torch.zeros(C, H, W))
    fpda = Fpda(torch.zeros(H, W), torch.zeros(H, W))
    assert hyperneuron(h).item() == fpda(h).item() == 0
    h[0, 0, 0, 0] = float("nan")
    assert hyperneuron(h).isnan()
    assert fpda(h).isnan()


def test_a_layer_of_one_neuron() -> None:
    h = torch.tensor([1.0, -5.0]).reshape(2, 1, 1, 1)
    expected = torch.tensor([0.5, 3.5])
    one = torch.ones(1, 1, 1)
    torch.testing.assert_close(HyperNeuron(2 * one, 2 * one)(h), expected)
    torch.testing.assert_close(Fpda(2 * one[0], 2 * one[0])(h), expected)


@pytest.mark.parametrize("shape", [(2, C, H, W + 1), (2, C + 1, H, W), (C, H, W), (2, C, H)])
def test_activations_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    hyperneuron, _, _ = _detectors(0)
    with pytest.raises(ShapeError, match=r"\(3, 4, 5\)"):
        hyperneuron(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, C, H + 1, W), (2, H, W)])
def test_fpda_refuses_maps_of_another_size(shape: tuple[int, ...]) -> None:
    _, fpda, _ = _detectors(0)
    with pytest.raises(ShapeError, match=r"\(4, 5\)"):
        fpda(torch.zeros(shape))


def test_statistics_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ShapeError, match="3 dimensions"):
        HyperNeuron(torch.zeros(H, W), torch.ones(H, W))
    with pytest.raises(ShapeError, match="2 dimensions"):
        Fpda(torch.zeros(H, W), torch.ones(H, W + 1))

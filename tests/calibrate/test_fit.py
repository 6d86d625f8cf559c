from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.small import SIZE, random_calibration, tiny_bare, tiny_defense, tiny_images
from zmask_export.attack.placement import patch_masks, random_placement
from zmask_export.attack.transforms import Appearance
from zmask_export.calibrate.fit import (
    FitSet,
    FitSettings,
    collect,
    fit_fusion,
    initial_parameters,
)
from zmask_export.defense import fusion
from zmask_export.defense.zmask import Heatmaps
from zmask_export.errors import DatasetError, PatchError

GRID = (20, 30)


def _blobs(scale: float = 1.0, clean: int = 6, patched: int = 6, seed: int = 0) -> FitSet:
    """Heatmaps that are low everywhere but under a rectangle."""
    generator = torch.Generator().manual_seed(seed)
    n = clean + patched
    target = torch.zeros(n, 1, *GRID)
    for index in range(clean, n):
        top, left = index % 10, (3 * index) % 20
        target[index, 0, top : top + 8, left : left + 9] = 1
    near = F.avg_pool2d(target, 3, 1, 1)

    def heat(level: float) -> Tensor:
        noise = torch.rand(n, 1, *GRID, generator=generator) * 0.2
        return (noise + level * near) * scale

    return FitSet(heat(1.0), heat(1.5), target, np.arange(n) >= clean)


def _loss(data: FitSet, parameters: Tensor) -> float:
    soft = fusion.soft_mask(data.shallow, data.deep, parameters)
    return float(F.binary_cross_entropy(soft, data.target))


def _iou(data: FitSet, parameters: Tensor) -> float:
    covered = fusion.soft_mask(data.shallow, data.deep, parameters) > 0.5
    inside = data.target > 0.5
    return float((covered & inside).sum() / (covered | inside).sum())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_fit_starts_with_a_gate_that_lives(scale: float) -> None:
    data = _blobs(scale)
    parameters = initial_parameters(data)
    assert parameters.shape == (8,)
    gate = fusion.deep_gate(data.deep, parameters)
    inside = data.target > 0.5
    assert gate[inside].median() > 0.8
    assert gate[~inside].median() < 0.2
    soft = fusion.soft_mask(data.shallow, data.deep, parameters)
    assert soft[inside].median() > 0.8
    assert soft[~inside].median() < 0.2


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_a_fit_lowers_the_loss_and_finds_the_patches(scale: float) -> None:
    data, told = _blobs(scale), []
    parameters, loss = fit_fusion(
        data, FitSettings(epochs=15, batch=4), on_epoch=lambda n, value: told.append((n, value))
    )
    assert _loss(data, parameters) < _loss(data, initial_parameters(data))
    assert _iou(data, parameters) > 0.9
    assert [n for n, _ in told] == list(range(1, 16))
    assert told[-1][1] == loss < told[0][1]
    unseen = _blobs(scale, seed=1)
    assert _iou(unseen, parameters) > 0.85
    assert not parameters.requires_grad


def test_heatmaps_that_say_nothing_still_give_finite_parameters() -> None:
    data = _blobs()
    flat = FitSet(torch.ones_like(data.shallow), torch.ones_like(data.deep), *_truth(data))
    empty = FitSet(torch.zeros_like(data.shallow), torch.zeros_like(data.deep), *_truth(data))
    for useless in (flat, empty):
        parameters, loss = fit_fusion(useless, FitSettings(epochs=3))
        assert parameters.isfinite().all()
        assert np.isfinite(loss)


def _truth(data: FitSet) -> tuple[Tensor, np.ndarray]:
    return data.target, data.patched


def test_a_fit_is_that_of_its_seed() -> None:
    data = _blobs()
    first, again, other = (
        fit_fusion(data, FitSettings(epochs=2, batch=4, seed=seed))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_patches_too_small_for_the_grid_are_refused() -> None:
    data = _blobs(patched=2)
    nothing = FitSet(data.shallow, data.deep, torch.zeros_like(data.target), data.patched)
    with pytest.raises(PatchError, match="too small for the grid"):
        fit_fusion(nothing, FitSettings())


@pytest.fixture(scope="module")
def heatmaps() -> Heatmaps:
    calibration = random_calibration(tiny_bare(), tiny_defense())
    return Heatmaps(
        tiny_defense(),
        {tap: torch.from_numpy(v) for tap, v in calibration.mean.items()},
        {tap: torch.from_numpy(v) for tap, v in calibration.std.items()},
        form="deployed",
    )


PATCHES = [torch.rand(3, 14, 18), torch.rand(3, 20, 10)]


def _collect(heatmaps: Heatmaps, settings: FitSettings | None = None) -> FitSet:
    images = list(tiny_images(3))
    for image in images:
        image.flags.writeable = False  # as decoded images are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return collect(tiny_bare(), heatmaps, images, PATCHES, settings or FitSettings())


def test_collect_takes_each_image_clean_and_with_each_patch(heatmaps: Heatmaps) -> None:
    data = _collect(heatmaps)
    grid = tiny_defense().grid
    for tensor in (data.shallow, data.deep, data.target):
        assert tensor.shape == (9, 1, *grid)
        assert not tensor.is_inference()
    np.testing.assert_array_equal(data.patched, [False, True, True] * 3)
    assert (data.target[~data.patched] == 0).all()
    assert (data.target[data.patched].sum((1, 2, 3)) > 0).all()


def test_collect_gives_the_heatmaps_of_the_clean_image(heatmaps: Heatmaps) -> None:
    data = _collect(heatmaps)
    image = torch.from_numpy(tiny_images(3)[1]).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        maps = heatmaps(tiny_bare()(image)[1])
    torch.testing.assert_close(data.shallow[3:4], maps["shallow"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(data.deep[3:4], maps["deep"], rtol=1e-4, atol=1e-5)


def test_a_target_cell_is_one_that_is_half_under_the_patch(heatmaps: Heatmaps) -> None:
    still = Appearance(scale=(1.0, 1.0), brightness=0, contrast=0, noise=0)
    data = _collect(heatmaps, FitSettings(appearance=still, seed=4))
    h, w = tiny_defense().grid
    for index in range(3):
        rng = np.random.default_rng((4, index))
        place = random_placement(rng, SIZE, (14, 18), (1.0, 1.0))
        mask = patch_masks([place], SIZE)[0].numpy()
        target = data.target[3 * index + 1, 0].numpy()
        for i in range(h):
            for j in range(w):
                # The pixels that the cell touches, as adaptive average pooling takes them.
                rows = slice(i * SIZE[0] // h, -(-(i + 1) * SIZE[0] // h))
                columns = slice(j * SIZE[1] // w, -(-(j + 1) * SIZE[1] // w))
                assert target[i, j] == (mask[rows, columns].mean() >= 0.5)


def test_collect_is_that_of_its_seed(heatmaps: Heatmaps) -> None:
    first, again, other = (_collect(heatmaps, FitSettings(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.shallow, again.shallow)
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.target, other.target)


def test_collect_needs_an_image_and_a_patch_that_fits(heatmaps: Heatmaps) -> None:
    images, bare = list(tiny_images(1)), tiny_bare()
    for pictures, patches in (([], PATCHES), (images, [])):
        with pytest.raises(DatasetError, match="at least one image and one patch"):
            collect(bare, heatmaps, pictures, patches, FitSettings())
    with pytest.raises(PatchError, match="does not fit"):
        collect(bare, heatmaps, images, [torch.rand(3, SIZE[0] + 1, 5)], FitSettings())

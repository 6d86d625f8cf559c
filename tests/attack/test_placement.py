from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zmask_export.attack.placement import (
    Placement,
    grid_targets,
    paste,
    patch_masks,
    random_placement,
)
from zmask_export.attack.transforms import Appearance, vary
from zmask_export.errors import PatchError

side = st.integers(1, 40)


@settings(deadline=None)
@given(
    image=st.tuples(side, side),
    patch=st.tuples(side, side),
    scale=st.tuples(st.floats(0.01, 1), st.floats(1, 10)),
    seed=st.integers(0, 2**32),
)
def test_a_placement_lies_inside_the_image(
    image: tuple[int, int], patch: tuple[int, int], scale: tuple[float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    if patch[0] > image[0] or patch[1] > image[1]:
        with pytest.raises(PatchError, match="does not fit"):
            random_placement(rng, image, patch, scale)
        return
    place = random_placement(rng, image, patch, scale)
    assert 0 <= place.top <= place.top + place.height <= image[0]
    assert 0 <= place.left <= place.left + place.width <= image[1]
    for got, own, limit in ((place.height, patch[0], image[0]), (place.width, patch[1], image[1])):
        assert got >= 1
        assert min(own * scale[0], limit) - 0.5 <= got <= max(own * scale[1] + 0.5, 1)
    assert random_placement(rng, image, patch).height == patch[0]


def test_every_place_is_taken() -> None:
    rng = np.random.default_rng(0)
    places = {random_placement(rng, (4, 5), (2, 3)) for _ in range(300)}
    assert places == {Placement(t, x, 2, 3) for t in range(3) for x in range(3)}


def test_a_placement_is_that_of_its_seed() -> None:
    first, again = (
        random_placement(np.random.default_rng(7), (90, 90), (9, 9), (0.5, 2)) for _ in range(2)
    )
    assert first == again


@settings(deadline=None)
@given(data=st.data(), height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_patch_of_its_own_size_is_pasted_to_the_pixel(
    data: st.DataObject, height: int, width: int
) -> None:
    images = torch.rand(2, 3, 12, 15)
    patches = [torch.rand(3, height, width) for _ in range(2)]
    places = [
        Placement(
            data.draw(st.integers(0, 12 - height)),
            data.draw(st.integers(0, 15 - width)),
            height,
            width,
        )
        for _ in range(2)
    ]
    before = images.clone()
    pasted = paste(images, patches, places)
    masks = patch_masks(places, (12, 15))
    assert torch.equal(images, before)
    for index, place in enumerate(places):
        assert torch.equal(pasted[index][:, place.rows, place.columns], patches[index])
        assert masks[index].sum() == height * width
        outside = ~masks[index]
        assert torch.equal(pasted[index][:, outside], images[index][:, outside])


@pytest.mark.parametrize("size", [(3, 4), (12, 15), (7, 2)])
def test_a_resized_patch_stays_inside_its_rectangle(size: tuple[int, int]) -> None:
    image, place = torch.rand(1, 3, 12, 15), Placement(0, 0, *size)
    pasted = paste(image, [torch.full((3, 6, 6), 0.25)], [place])
    inside = patch_masks([place], (12, 15))[0]
    torch.testing.assert_close(pasted[0][:, inside], torch.full((3, int(inside.sum())), 0.25))
    assert torch.equal(pasted[0][:, ~inside], image[0][:, ~inside])


@pytest.mark.parametrize("size", [(4, 5), (6, 7), (3, 3)])
def test_the_gradient_of_pasting_is_that_of_finite_differences(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 10, 11, generator=generator, dtype=torch.double)
    patch = torch.rand(3, 4, 5, generator=generator, dtype=torch.double, requires_grad=True)
    weight = torch.rand(1, 3, 10, 11, generator=generator, dtype=torch.double)

    def loss(p: torch.Tensor) -> torch.Tensor:
        return (paste(image, [p], [Placement(2, 3, *size)]).square() * weight).sum()

    assert torch.autograd.gradcheck(loss, (patch,))
    (gradient,) = torch.autograd.grad(loss(patch), patch)
    assert (gradient != 0).all()


def test_one_patch_and_place_an_image() -> None:
    with pytest.raises(ValueError, match="zip"):
        paste(torch.rand(2, 3, 8, 8), [torch.rand(3, 2, 2)], [Placement(0, 0, 2, 2)] * 2)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    brightness=st.floats(0, 2),
    contrast=st.floats(0, 2),
    noise=st.floats(0, 2),
)
def test_a_varied_patch_stays_in_0_1(
    seed: int, brightness: float, contrast: float, noise: float
) -> None:
    patch = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(seed))
    appearance = Appearance(brightness=brightness, contrast=contrast, noise=noise)
    varied, again = (vary(patch, appearance, np.random.default_rng(seed)) for _ in range(2))
    assert varied.shape == patch.shape
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert torch.equal(varied, again)


def test_without_ranges_a_patch_stays_as_it_is() -> None:
    patch = torch.rand(3, 5, 6)
    still = Appearance(scale=(1, 1), brightness=0, contrast=0, noise=0)
    torch.testing.assert_close(vary(patch, still, np.random.default_rng(0)), patch)


def test_each_range_changes_the_patch_in_its_own_way() -> None:
    patch = torch.rand(3, 30, 30) * 0.2 + 0.4
    off = {"brightness": 0.0, "contrast": 0.0, "noise": 0.0}

    def change(**ranges: float) -> torch.Tensor:
        return vary(patch, Appearance(**(off | ranges)), np.random.default_rng(3)) - patch

    brighter, contrast, noise = change(brightness=0.05), change(contrast=0.1), change(noise=0.05)
    assert brighter.std() < 1e-6 < brighter.abs().mean()
    assert abs(contrast.mean()) < 1e-6 < contrast.std()
    assert 0 < noise.std() < 0.05
    flat = torch.stack([noise.flatten(), patch.flatten()])
    assert abs(torch.corrcoef(flat)[0, 1]) < 0.1


def test_gradients_flow_through_a_change() -> None:
    patch = torch.full((3, 4, 4), 0.5, requires_grad=True)
    vary(patch, Appearance(), np.random.default_rng(0)).sum().backward()
    assert patch.grad is not None
    assert (patch.grad > 0).all()


def test_a_cell_of_the_grid_belongs_to_the_patch_from_half_on() -> None:
    masks = torch.zeros(2, 8, 12, dtype=torch.bool)
    masks[0, 0:6, 0:6] = True  # 1.5 cells down, 2 across
    masks[1, 4:5, 3:12] = True  # a quarter of each cell
    target = grid_targets(masks, (2, 4))
    assert target.dtype == torch.float32
    assert target[:, 0].tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0]], [[0] * 4, [0] * 4]]
    assert torch.equal(grid_targets(masks, (8, 12))[:, 0].bool(), masks)

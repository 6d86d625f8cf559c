from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.defense.baselines.lgs import LocalGradientsSmoothing
from zmask_export.errors import UsageError

LGS = LocalGradientsSmoothing()


def _by_loops(
    image: NDArray[np.float64], block: int = 15, overlap: int = 5
) -> tuple[NDArray[np.float64], float]:
    """The mask (H, W) of one image (3, H, W), and how near a block came to the threshold."""
    h, w = image.shape[1:]
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    g = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            across = grey[i, j + 1] - grey[i, j] if j + 1 < w else 0.0
            down = grey[i + 1, j] - grey[i, j] if i + 1 < h else 0.0
            g[i, j] = math.hypot(across, down)
    if g.max() > g.min():
        g = (g - g.min()) / (g.max() - g.min())
    else:
        g[:] = 0
    mask, nearest = np.ones((h, w)), 1.0
    top = 0
    while top == 0 or top + overlap < h:
        left = 0
        while left == 0 or left + overlap < w:
            rows, columns = range(top, min(top + block, h)), range(left, min(left + block, w))
            mean = sum(g[i, j] for i in rows for j in columns) / (len(rows) * len(columns))
            nearest = min(nearest, abs(mean - 0.1))
            if mean > 0.1:
                for i in rows:
                    for j in columns:
                        mask[i, j] = 1 - min(max(2.3 * g[i, j], 0), 1)
            left += block - overlap
        top += block - overlap
    return mask, nearest


def _picture(size: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Faint noise with a square of strong noise somewhere, so that some blocks are smoothed."""
    rng = np.random.default_rng(seed)
    image = 0.5 + 0.04 * rng.random((3, *size), dtype=np.float32)
    top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
    square = image[:, top : top + 12, left : left + 12]
    square[:] = rng.random(square.shape)
    return image


SIZES = [
    (1, 1), (1, 40), (40, 1), (2, 3), (14, 15), (15, 15), (16, 25), (25, 26), (37, 53), (44, 61),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", SIZES)
def test_mask_is_that_of_explicit_loops(size: tuple[int, int], seed: int) -> None:
    image = _picture(size, seed)
    expected, nearest = _by_loops(image.astype(np.float64))
    assert nearest > 1e-5, "a block at the threshold may fall to either side"
    mask = LGS.mask(torch.from_numpy(image)[None])
    assert mask.shape == (1, 1, *size)
    np.testing.assert_allclose(mask[0, 0].numpy(), expected, atol=2e-5)


def test_other_blocks_are_those_of_explicit_loops() -> None:
    image = _picture((31, 40), 7)
    expected, _ = _by_loops(image.astype(np.float64), block=8, overlap=3)
    mask = LocalGradientsSmoothing(block=8, overlap=3).mask(torch.from_numpy(image)[None])
    np.testing.assert_allclose(mask[0, 0].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_image_stays(value: float) -> None:
    image = torch.full((2, 3, 33, 47), value)
    assert torch.equal(LGS(image), image)


def _edges(size: tuple[int, int], columns: tuple[int, ...]) -> Tensor:
    """Black, then white from the first of ``columns`` on, black again from the second, and so on."""
    line = torch.zeros(size[1])
    for column in columns:
        line[column:] = 1 - line[column:]
    return line.expand(1, 3, *size).contiguous()


def test_a_lone_edge_stays_and_a_line_is_darkened() -> None:
    # One column of full gradient is 1/15 of a block, under the threshold; a line has two.
    step, line = _edges((20, 40), (17,)), _edges((20, 40), (17, 18))
    assert torch.equal(LGS(step), step)
    expected = torch.ones(40)
    expected[16:18] = 0
    torch.testing.assert_close(LGS.mask(line), expected.expand(1, 1, 20, 40), atol=1e-6, rtol=0)


def test_one_of_two_overlapping_blocks_is_enough() -> None:
    # Columns 0 to 14 hold three edges and are smoothed; columns 10 to 24 hold the last one only.
    image = _edges((15, 25), (3, 5, 13))
    expected = torch.ones(25)
    expected[[2, 4, 12]] = 0
    torch.testing.assert_close(LGS.mask(image), expected.expand(1, 1, 15, 25), atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", range(2, 47))
def test_every_pixel_lies_in_a_block(width: int) -> None:
    # Stripes of one pixel have full gradient everywhere but in the last column.
    image = _edges((48 - width, width), tuple(range(1, width)))
    expected = torch.zeros(width)
    expected[-1] = 1
    mask = LGS.mask(image)
    torch.testing.assert_close(mask, expected.expand_as(mask), atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), factor=st.floats(0.25, 1.0), offset=st.floats(0, 0.25))
def test_the_mask_knows_neither_brightness_nor_contrast(
    seed: int, factor: float, offset: float
) -> None:
    image = torch.from_numpy(_picture((30, 41), seed))[None]
    if _by_loops(image[0].double().numpy())[1] < 1e-4:
        return
    torch.testing.assert_close(
        LGS.mask(image * factor + offset), LGS.mask(image), atol=1e-4, rtol=0
    )


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_images_of_a_batch_do_not_meet(seed: int) -> None:
    images = torch.from_numpy(np.stack([_picture((30, 41), seed + i) for i in range(3)]))
    images[2] *= 100
    together = LGS(images)
    for index in range(3):
        assert torch.equal(together[index : index + 1], LGS(images[index : index + 1]))


def test_the_image_is_darkened_by_its_mask() -> None:
    image = torch.from_numpy(_picture((30, 41), 0))[None]
    mask = LGS.mask(image)
    assert 0 <= mask.min() < 0.5
    assert mask.max() == 1
    assert torch.equal(LGS(image), image * mask)
    assert torch.equal(LGS.protect(image), LGS(image))


def test_gradients_pass_through_flat_areas() -> None:
    image = torch.from_numpy(_picture((30, 41), 0))[None]
    image[:, :, :, :10] = 0.5
    image.requires_grad_(True)
    LGS(image).sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize(("block", "overlap"), [(15, 15), (15, 16), (15, -1), (0, 0)])
def test_blocks_that_do_not_advance_are_refused(block: int, overlap: int) -> None:
    with pytest.raises(UsageError, match="overlap"):
        LocalGradientsSmoothing(block, overlap)

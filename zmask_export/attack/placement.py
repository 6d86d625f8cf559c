"""Putting a patch into images, differentiably (g of Eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zmask_export.errors import PatchError
from zmask_export.spec import Size


@dataclass(frozen=True)
class Placement:
    """A rectangle in pixels: top-left corner and size."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Rows that the patch covers."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Columns that the patch covers."""
        return slice(self.left, self.left + self.width)

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2, the last two exclusive."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def require_fits(patch: Size, image: Size) -> None:
    """Refuse a patch (h, w) that is larger than an image (H, W).

    Raises:
        PatchError: it is.
    """
    if patch[0] > image[0] or patch[1] > image[1]:
        raise PatchError(
            f"A patch of {patch[1]} x {patch[0]} does not fit an image of {image[1]} x {image[0]}.",
            fix="Choose a smaller patch.",
        )


def random_placement(
    rng: np.random.Generator, image: Size, patch: Size, scale: tuple[float, float] = (1.0, 1.0)
) -> Placement:
    """A rectangle anywhere inside the image, uniformly, at a uniformly drawn scale.

    Args:
        rng: source of randomness.
        image: (H, W) of the image.
        patch: (h, w) of the patch at scale 1.
        scale: smallest and largest scale; a rectangle never exceeds the image.

    Raises:
        PatchError: the patch is larger than the image.
    """
    require_fits(patch, image)
    factor = rng.uniform(*scale)
    height = int(np.clip(round(patch[0] * factor), 1, image[0]))
    width = int(np.clip(round(patch[1] * factor), 1, image[1]))
    top = int(rng.integers(0, image[0] - height + 1))
    left = int(rng.integers(0, image[1] - width + 1))
    return Placement(top, left, height, width)


def paste(images: Tensor, patches: Sequence[Tensor], placements: Sequence[Placement]) -> Tensor:
    """Images with a patch each.

    Args:
        images: (N, 3, H, W).
        patches: N patches (3, h, w), each resized (bilinear) to its placement. Gradients flow.
        placements: N rectangles.

    Returns:
        (N, 3, H, W), a new tensor.
    """
    h, w = images.shape[2:]
    result = []
    for image, patch, place in zip(images, patches, placements, strict=True):
        size = (place.height, place.width)
        if tuple(patch.shape[1:]) != size:
            patch = F.interpolate(patch[None], size, mode="bilinear", antialias=True)[0]
        pad = (
            place.left,
            w - place.left - place.width,
            place.top,
            h - place.top - place.height,
        )
        inside = F.pad(torch.ones(1, *size, dtype=images.dtype), pad)
        result.append(image * (1 - inside) + F.pad(patch, pad))
    return torch.stack(result)


def patch_masks(placements: Sequence[Placement], size: Size) -> Tensor:
    """Where the patches are: bool (N, H, W)."""
    masks = torch.zeros(len(placements), *size, dtype=torch.bool)
    for mask, place in zip(masks, placements, strict=True):
        mask[place.rows, place.columns] = True
    return masks


def grid_targets(masks: Tensor, grid: Size) -> Tensor:
    """Patch masks on a grid: 1 where at least half a cell lies under the patch.

    Args:
        masks: bool (N, H, W).
        grid: (HR, WR).

    Returns:
        float32 (N, 1, HR, WR) of zeros and ones.
    """
    return (F.interpolate(masks[:, None].float(), grid, mode="area") >= 0.5).float()

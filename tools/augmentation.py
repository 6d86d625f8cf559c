"""Random views and colours of a labelled image, which the training tools share."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zmask_export.data.segmentation import IGNORE


def random_view(
    image: Tensor,
    labels: Tensor,
    crop: tuple[int, int],
    rng: np.random.Generator,
    *,
    scales: tuple[float, float],
    padding: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """A random scale, place and flip.

    Args:
        image: uint8 (3, H, W).
        labels: uint8 (H, W).
        crop: (h, w) of the view.
        rng: of everything random.
        scales: smallest and largest enlargement.
        padding: what stands outside the image, as ``grid_sample`` calls it.

    Returns:
        The image float32 (3, h, w) in [0, 1], the labels (h, w), unlabelled outside, and where the view
        lies inside the image, bool (h, w).
    """
    h, w = image.shape[1:]
    scale = math.exp(rng.uniform(math.log(scales[0]), math.log(scales[1])))
    side_h, side_w = crop[0] / scale, crop[1] / scale
    top, left = (
        rng.uniform(min(0, h - side_h), max(0, h - side_h)),
        rng.uniform(min(0, w - side_w), max(0, w - side_w)),
    )
    ys = (torch.arange(crop[0]) + 0.5) / crop[0] * side_h + top
    xs = (torch.arange(crop[1]) + 0.5) / crop[1] * side_w + left
    if rng.random() < 0.5:
        xs = xs.flip(0)
    grid = torch.stack(torch.meshgrid(ys / h * 2 - 1, xs / w * 2 - 1, indexing="ij")[::-1], -1)
    pixels = image[None].float() / 255
    x = F.grid_sample(pixels, grid[None], padding_mode=padding, align_corners=False)[0]
    iy, ix = ys.floor().long(), xs.floor().long()
    inside = ((iy >= 0) & (iy < h))[:, None] & ((ix >= 0) & (ix < w))[None]
    y = torch.where(inside, labels[iy.clamp(0, h - 1)][:, ix.clamp(0, w - 1)], IGNORE)
    return x, y, inside


def recolour(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Random brightness, contrast and saturation of (3, h, w); the result lies in [0, 1]."""
    x = image * rng.uniform(0.7, 1.3)
    x = (x - x.mean()) * rng.uniform(0.7, 1.3) + x.mean()
    x = x.mean(0, keepdim=True).lerp(x, rng.uniform(0.6, 1.4))
    return x.clamp(0, 1)

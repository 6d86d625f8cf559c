"""The images that a build is verified on: clean ones, and the same with a patch in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.attack.craft import random_patch
from zmask_export.attack.placement import paste, random_placement
from zmask_export.data.drawn import DrawnScenes
from zmask_export.data.images import ImageFolder, ImageSource, OnBad
from zmask_export.spec import Size

Named = list[tuple[str, NDArray[np.uint8]]]

PATCH_SHARE = 0.29
"""Side of an L patch over the image's: 600 x 300 of 2048 x 1024, in the paper."""


def source_of(
    folder: Path | None, size: Size, *, count: int, on_bad: OnBad = "error"
) -> ImageSource:
    """Up to ``count`` images of a folder, or drawn scenes where none is given."""
    if folder is None:
        return DrawnScenes(size, count)
    return ImageFolder(folder, size, on_bad=on_bad, limit=count)


def probe_images(source: ImageSource, patch: Tensor, seed: int = 0) -> Named:
    """Every image clean and with the patch somewhere in it, in turn."""
    probes: Named = []
    for index, frame in enumerate(f for f in source.frames() if f is not None):
        rng = np.random.default_rng((seed, index))
        probes.append((f"{frame.name}, clean", frame.image))
        probes.append((f"{frame.name}, patched", with_patch(frame.image, patch, rng)))
    return probes


def with_patch(
    image: NDArray[np.uint8], patch: Tensor, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A uint8 image (H, W, 3) with a patch (3, h, w) at a random place."""
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    place = random_placement(
        rng, (image.shape[0], image.shape[1]), (patch.shape[1], patch.shape[2])
    )
    patched = paste(tensor, [patch], [place])[0]
    return (patched * 255).round().byte().permute(1, 2, 0).numpy()


def noise_patch(size: Size, seed: int = 0) -> Tensor:
    """A patch of uniform noise as large as an L patch on an image of ``size``."""
    h, w = (round(PATCH_SHARE * side) for side in size)
    return random_patch((h, w), seed)

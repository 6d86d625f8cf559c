"""The frames of a run: noise, or seeded views of clean pictures. Any frame can be made at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zmask_export.data.images import read

Pixels = NDArray[np.uint8]
"""(H, W, 3), RGB."""

SMALLEST_CROP = 0.9
"""Of the sides."""
GAMMA = 0.2
"""Largest natural logarithm of the exponent, either way."""
CONTRAST = 0.1
BRIGHTNESS = 0.05
"""Of white."""


class Stream(Protocol):
    """Frames that come round again and again."""

    @property
    def distinct(self) -> int:
        """How many there are."""
        ...

    def frame(self, index: int) -> tuple[Pixels, float | None]:
        """The frame of that number, from 0, and the threshold to run it with; None for the bundle's."""
        ...


class Noise:
    """Frames of noise; every second one with a threshold of 0, so that a gated engine covers it.

    Args:
        size: (H, W).
    """

    distinct = 4

    def __init__(self, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(0)
        self._frames = [
            rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(self.distinct)
        ]

    def frame(self, index: int) -> tuple[Pixels, float | None]:
        return self._frames[index], 0.0 if index % 2 else None


def view(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A picture (H, W, 3) as it might also have been taken: cut, mirrored, lit otherwise."""
    h, w = image.shape[:2]
    scale = rng.uniform(SMALLEST_CROP, 1)
    top, left = rng.uniform(0, 1 - scale, 2) * (h, w)
    box = (left, top, left + scale * w, top + scale * h)
    cut = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    levels = np.linspace(0, 1, 256) ** np.exp(rng.uniform(-GAMMA, GAMMA))
    levels = (levels - 0.5) * rng.uniform(1 - CONTRAST, 1 + CONTRAST) + 0.5
    levels += rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    table = np.clip(np.rint(255 * levels), 0, 255).astype(np.uint8)
    return table[np.asarray(cut)]


@dataclass(frozen=True)
class Views:
    """Seeded views of pictures: the first view of each, then the second of each, and so on.

    Attributes:
        paths: of the pictures.
        count: views of each.
        seed: of the views.
        threshold: to run them with.
    """

    paths: Sequence[Path]
    count: int
    seed: int
    threshold: float | None = None

    @property
    def distinct(self) -> int:
        """How many frames there are."""
        return len(self.paths) * self.count

    def frame(self, index: int) -> tuple[Pixels, float | None]:
        """See :class:`Stream`.

        Raises:
            ImageError: the picture cannot be read.
        """
        number, picture = divmod(index, len(self.paths))
        path = self.paths[picture]
        rng = np.random.default_rng((self.seed, number, *path.name.encode()))
        return view(read(path), rng), self.threshold

"""Random texture, and the bound on how fine it gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

FINEST = 640
"""Most pixels along a texture's side: bounds the time of large scenes."""


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], down: float, across: float
) -> Floats:
    """Smooth noise with features of ``down`` x ``across`` pixels.

    Args:
        rng: source of randomness.
        shape: rows and columns in pixels.
        down: height of a feature in pixels.
        across: width of a feature in pixels.

    Returns:
        float32 array of ``shape``, about -1 to 1.
    """
    coarse = rng.random((int(shape[0] / down) + 2, int(shape[1] / across) + 2), np.float32) * 2 - 1
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))

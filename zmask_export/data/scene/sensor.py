"""From the canvas to the image: the camera's lens and sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFilter

from zmask_export.data.scene.camera import OVERSAMPLING
from zmask_export.data.scene.canvas import Scene


def expose(scene: Scene) -> NDArray[np.uint8]:
    """Shrink, blur, vignette, contrast and noise: the finished image, (H, W, 3), RGB, 0 to 255."""
    grain = scene.grain
    blur = ImageFilter.GaussianBlur(0.35 + 0.0004 * scene.height)
    light = np.asarray(scene.image.reduce(OVERSAMPLING).filter(blur), np.float32)
    down, across = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in scene.size)
    gain = scene.street.exposure * (1 - 0.09 * (down[:, None] + across)) / 255
    exposed = (0.88 * light + 0.12 * light.mean(2, keepdims=True)) * gain[..., None]
    noise = 1.8 * grain.standard_normal(scene.size, np.float32)[..., None]
    noise = noise + 1.2 * grain.standard_normal(light.shape, np.float32)
    # A film-like curve: deep shadows, and highlights that fade out instead of clipping.
    image = 255 * (1 - np.exp(-2.4 * exposed**1.7)) + noise
    image = np.rint(image.clip(0, 255)).astype(np.uint8)
    return np.ascontiguousarray(image[:, ::-1]) if scene.camera.mirrored else image

"""Example pictures: what the network sees, what it makes of it, and what the defense covers."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from zmask_export.evaluate.page import Figure
from zmask_export.evaluate.subjects import Image, Network
from zmask_export.runtime.pictures import palette

_WIDTH = 320
_COVERED = np.array((255, 0, 255), np.uint8)


def example(
    network: Network, image: Image, classes: tuple[str, ...], attack: str
) -> tuple[Figure, ...]:
    """Pictures of one patched image: as it is, and its predictions without and with the defense.

    Args:
        network: runs bare and defended.
        image: float32 (1, 3, H, W).
        classes: class names.
        attack: what the captions call the patch.
    """
    colours = palette(classes)
    frame = (image[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    bare, defended = network.bare(image), network.defended(image)
    pictures = [(f"Patched frame ({attack})", frame)]
    if defended.kept is not None:
        covered = np.where(defended.kept[..., None], frame, _COVERED)
        pictures.append(("Covered by Z-Mask (magenta)", covered))
    for caption, outcome in (("Prediction, bare", bare), ("Prediction, defended", defended)):
        if outcome.prediction is not None:
            pictures.append((caption, colours[outcome.prediction]))
    return tuple(Figure(caption, source=_address(picture)) for caption, picture in pictures)


def _address(picture: NDArray[np.uint8]) -> str:
    """A small JPEG as a ``data:`` address."""
    image = Pictures.fromarray(picture)
    image.thumbnail((_WIDTH, _WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

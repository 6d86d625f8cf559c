"""Pictures inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH = 320
SCORE = 0.3
"""Detections that are less sure are not drawn."""


def address(picture: NDArray[np.uint8], width: int = WIDTH) -> str:
    """A small JPEG as a ``data:`` address.

    Args:
        picture: uint8 (H, W, 3).
        width: longer side at the most, in pixels.
    """
    image = Image.fromarray(picture)
    image.thumbnail((width, width))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

"""The pinhole camera: where a place in the street lies on the canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EYE = 1.35
"""Height of the camera above the road, in metres."""

OVERSAMPLING = 2
"""Pixels of the canvas along one pixel of the image: shrinking smooths the edges."""


@dataclass(frozen=True)
class Camera:
    """A camera that looks straight ahead; lengths are pixels of the canvas."""

    focal: float
    """Focal length."""
    cx: float
    """Column of the vanishing point."""
    cy: float
    """Row of the vanishing point: the horizon."""
    mirrored: bool
    """Whether the image is flipped left to right in the end."""

    @classmethod
    def choose(cls, rng: np.random.Generator, size: tuple[int, int]) -> Camera:
        """Draw a camera at random for images of ``size``, height and width in pixels."""
        height, width = size
        cx, cy = OVERSAMPLING * np.array((width, height)) * rng.uniform(0.44, 0.53, 2)
        focal = 0.95 * OVERSAMPLING * float(np.sqrt(height * width * 4 / 3))
        return cls(focal, cx, cy, mirrored=rng.random() < 0.5)

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Column and row on the canvas, in pixels, of a place in metres."""
        return self.cx + self.focal * x / z, self.cy - self.focal * (y - EYE) / z

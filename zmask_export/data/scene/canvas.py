"""A scene being drawn: the canvas and the shapes that everything on it consists of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from zmask_export.data.scene.camera import OVERSAMPLING, Camera
from zmask_export.data.scene.colours import Colour, mix
from zmask_export.data.scene.street import Street

Point = tuple[float, float, float]
"""A place: ``x``, ``y`` and ``z`` in metres."""


def circle(r: float, sides: int = 20) -> list[tuple[float, float]]:
    """Corners of a regular polygon: (across, up) from its middle, in the unit of the radius."""
    turns = np.arange(sides) * 2 * np.pi / sides
    return [(r * np.sin(turn), r * np.cos(turn)) for turn in turns]


class Scene:
    """The street that a seed chooses, the camera, and an empty canvas to draw one with the other.

    Args:
        size: height and width of the finished image in pixels.
        seed: which street, 0 or more.
    """

    def __init__(self, size: tuple[int, int], seed: int) -> None:
        self.size = self.height, self.width = size
        self.rng = np.random.default_rng(seed)
        # Texture takes as many draws as it has pixels; the layout must not depend on them.
        self.grain = np.random.default_rng((seed, 1))
        self.street = Street.choose(self.rng)
        self.camera = Camera.choose(self.rng, size)
        self.image = Image.new("RGB", (OVERSAMPLING * self.width, OVERSAMPLING * self.height))
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def branch(self) -> np.random.Generator:
        """A generator of its own for a thing: how much it draws must not change the next thing."""
        return np.random.default_rng(self.rng.integers(2**32))

    def ink(self, colour: Colour, z: float, alpha: float = 1.0) -> tuple[int, int, int, int]:
        """A colour (3,) seen through ``z`` metres of haze: red, green, blue, alpha, 0 to 255."""
        hazy = mix(colour, self.street.haze, 1 - np.exp(-z / 400))
        red, green, blue = hazy.clip(0, 255).tolist()
        return int(red), int(green), int(blue), int(255 * alpha)

    def fill(self, points: Sequence[Point], colour: Colour, alpha: float = 1.0) -> None:
        """Draw a polygon of one colour (3,); its first corner tells how far away it is."""
        ink = self.ink(colour, points[0][2], alpha)
        self.draw.polygon([self.camera.at(*point) for point in points], fill=ink)

    def strip(
        self, a: Point, b: Point, w: float, colour: Colour, alpha: float = 1.0, taper: float = 1.0
    ) -> None:
        """Draw a strip with level ends: ``w`` metres wide at ``a``, ``w * taper`` at ``b``."""
        corners = ((a, -w), (a, w), (b, w * taper), (b, -w * taper))
        self.fill([(p[0] + d / 2, p[1], p[2]) for p, d in corners], colour, alpha)

    def upright(
        self,
        x: float,
        z: float,
        span: tuple[float, float],
        w: float,
        colour: Colour,
        taper: float = 1.0,
    ) -> None:
        """Draw an upright strip from height ``span[0]`` to ``span[1]``; all lengths are metres."""
        self.strip((x, span[0], z), (x, span[1], z), w, colour, taper=taper)

    def disc(self, x: float, y: float, z: float, r: float, colour: Colour, sides: int = 20) -> None:
        """Draw a disc, or a regular polygon, that faces the camera; lengths are metres."""
        self.fill([(x + across, y + up, z) for across, up in circle(r, sides)], colour)

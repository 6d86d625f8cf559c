"""Cars, seen from behind or from the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zmask_export.data.scene.canvas import Point, Scene, circle
from zmask_export.data.scene.colours import (
    AMBER,
    BLACK,
    DARK_GLASS,
    LIT_GLASS,
    METAL,
    PAINTS,
    RED,
    WHITE,
    Colour,
    mix,
    pick,
)


@dataclass(frozen=True, eq=False)
class _Body:
    """Shape and colours of a car; metres, ``z`` counted from the end that the camera sees."""

    length: float
    half: float  # half its width
    roof: float  # height of the roof
    rim: float  # half the width of the roof
    deck: float  # height of the boot's or the bonnet's edge
    sill: float  # height of the lower edge of the glass
    base: float  # z of the lower edge of the glass
    brow: float  # z of the upper edge of the glass
    tail: float  # z of the lower edge of the glass at the other end
    paint: Colour
    glass: Colour


def car(scene: Scene, x: float, z: float, light: float) -> None:
    """Draw a car from behind, its end at ``x``, ``z`` metres, its paint lit by ``light``."""
    _draw(scene, x, z, light, facing=False)


def oncoming_car(scene: Scene, x: float, z: float, light: float) -> None:
    """Draw a car from the front, its end at ``x``, ``z`` metres, its paint lit by ``light``."""
    _draw(scene, x, z, light, facing=True)


def _draw(scene: Scene, x: float, z: float, light: float, facing: bool) -> None:
    body = _choose(scene.rng, light, facing)
    _shade(scene, x, z, body)
    if abs(x) > body.half:
        _draw_side(scene, x, z, body)
    _draw_end(scene, x, z, body, facing)


def _choose(rng: np.random.Generator, light: float, facing: bool) -> _Body:
    paint = pick(rng, PAINTS, 0.6 + 0.4 * light)
    length, half, roof = rng.uniform((3.7, 0.8, 1.4), (4.6, 0.9, 1.56))
    deck, sill, base, brow = (0.8, 0.98, 1.0, 1.8) if facing else (0.93, 1.0, 0.12, 0.55)
    rim, tail = half - 0.16, length - (0.2 if facing else 1.1)
    glass = mix(DARK_GLASS, LIT_GLASS, rng.random() * 0.6)
    return _Body(length, half, roof, rim, deck, sill, base, brow, tail, paint, glass)


def _shade(scene: Scene, x: float, z: float, body: _Body) -> None:
    """The shadow under the car, softer the further out."""
    for grow, alpha in ((0.5, 0.15), (0.35, 0.2), (0.2, 0.3), (0.05, 0.5)):
        ends = (x, 0.0, z - grow), (x, 0.0, z + body.length + grow)
        scene.strip(*ends, 2 * (body.half + grow), BLACK, alpha)


def _draw_side(scene: Scene, x: float, z: float, body: _Body) -> None:
    """The flank towards the camera's axis: the only one in view."""
    length, roof, sill, base, tail = body.length, body.roof, body.sill, body.base, body.tail

    def flank(outline: Sequence[Point], colour: Colour) -> None:
        """Part of it, as (how far it leans in, 0 to 1, height, distance behind the end)."""
        inner = -np.sign(x)
        points = [(x + inner * (body.half - 0.16 * lean), y, z + b) for lean, y, b in outline]
        scene.fill(points, colour)

    low = [(0, 0.75, length), (0, 0.28, length), (0, 0.28, 0)]
    glazing = [(0, sill, base), (1, roof, body.brow), (1, roof, tail - 0.8), (0, 0.95, tail)]
    flank([*low, (0, body.deck, 0), *glazing], body.paint * 0.75)
    flank([(0, 0.5, 0), (0, 0.5, length), *low[1:]], body.paint * 0.5)
    panes = [(lean, y - 0.05, b + (0.2 if b < 2 else -0.2)) for lean, y, b in glazing]
    flank(panes, body.glass * 0.9)
    for b in base + np.array((0.35, 0.65)) * (tail - base):
        pillar = [(0, sill, b), (1, roof, b), (1, roof, b + 0.1), (0, sill, b + 0.1)]
        flank(pillar, body.paint * 0.6)
    for axle in (0.75, length - 0.8):
        for r, tint in ((0.34, BLACK), (0.2, METAL * 0.8), (0.08, BLACK * 3)):
            flank([(0, 0.33 + up, axle + along) for up, along in circle(r)], tint)


def _draw_end(scene: Scene, x: float, z: float, body: _Body, facing: bool) -> None:
    """The end towards the camera, from the far edge of the roof to the lights."""
    half, rim, roof, brow, paint = body.half, body.rim, body.roof, body.brow, body.paint
    deck, sill, base, glass = body.deck, body.sill, body.base, body.glass
    plate, lights, top = (WHITE * 0.85, WHITE, 0.75) if facing else (AMBER, RED * 0.8, 0.88)
    for wheel in (x - half + 0.14, x + half - 0.14):
        scene.upright(wheel, z + 0.2, (0, 0.4), 0.22, BLACK)
    # Half its width, y and z of a panel's lower edge, the same of its upper edge, its colour.
    for w, y, a, upper_w, upper_y, b, colour in (
        (half, sill, base, rim, roof, brow, paint * 0.95),
        (rim, roof, brow, rim - 0.12, roof + 0.05, brow + 0.2, paint * 1.1),
        (half - 0.1, sill + 0.03, base, rim - 0.05, roof - 0.07, brow, glass),
        (half - 0.14, roof - 0.22, brow, rim - 0.06, roof - 0.08, brow, mix(glass, WHITE, 0.25)),
        (half, deck, 0, half - 0.04, sill, base, paint * 1.25),
        (half - 0.06, 0.24, 0, half, 0.5, 0, paint * 0.65),
        (half, 0.5, 0, half - 0.02, deck, 0, paint),
        (half, deck - 0.12, 0, half - 0.02, deck, 0, paint * 1.15),
        (half - 0.08, 0.24, 0, half - 0.06, 0.32, 0, BLACK * 1.4),
        (0.26, 0.52, 0, 0.26, 0.63, 0, plate),
    ):
        scene.strip((x, y, z + a), (x, upper_y, z + b), 2 * w, colour, taper=upper_w / w)
    for light in (x - half + 0.13, x + half - 0.13):
        scene.upright(light, z, (0.6, top), 0.22, lights)

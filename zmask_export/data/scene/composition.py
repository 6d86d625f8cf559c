"""What stands where: the whole scene, put together from back to front."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zmask_export.data.scene.backdrop import mark_lanes, paint_backdrop
from zmask_export.data.scene.buildings import house
from zmask_export.data.scene.canvas import Scene
from zmask_export.data.scene.cars import car, oncoming_car
from zmask_export.data.scene.colours import GREENS, pick
from zmask_export.data.scene.pavement import lamp, sign, walker
from zmask_export.data.scene.plants import foliage, tree
from zmask_export.data.scene.sensor import expose
from zmask_export.data.scene.street import FAR, OUTWARDS
from zmask_export.errors import ShapeError

MIN_SIDE = 64
"""Smallest side of a scene in pixels."""


def draw_scene(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Draw a street as a camera behind a windscreen sees it.

    The same size and seed give the same image; the same seed shows the same street at any size.

    Args:
        size: height and width in pixels, each at least ``MIN_SIDE``.
        seed: which street, 0 or more.

    Returns:
        uint8 array (H, W, 3), RGB, 0 to 255.

    Raises:
        ShapeError: a side is shorter than ``MIN_SIDE``.
    """
    if min(size) < MIN_SIDE:
        raise ShapeError(
            f"A scene of {size[0]} x {size[1]} pixels is too small to draw.",
            fix=f"Ask for sides of at least {MIN_SIDE} pixels.",
        )
    scene = Scene(size, seed)
    paint_backdrop(scene)
    mark_lanes(scene)
    _build(scene)
    _furnish(scene)
    return expose(scene)


def _build(scene: Scene) -> None:
    """Both rows of buildings, with gardens between some, and trees where the street ends."""
    rng, street = scene.rng, scene.street
    for x in (-16.0, -6.0, 4.0, 15.0):
        foliage(scene, (x, 4.5, FAR + 10), rng.uniform(6, 9), pick(rng, GREENS), 0.8)
    for side, out in enumerate(OUTWARDS):
        light, edge = street.sun[side], street.kerbs[side] + out * street.pavements[side]
        ends = np.cumsum(rng.uniform(7, 18, 20)) - rng.uniform(0, 12)
        for near, far in zip(ends[-2::-1], ends[:0:-1], strict=True):
            x = edge + out * rng.choice([0.0, 0.0, 1.2])
            if rng.random() < 0.08 + 0.2 * street.wooded:
                tree(scene, x + out * rng.uniform(2, 5), max(far - 3, 9.0), light)
                for z in np.arange(far, max(near, 8.0), -4.0):
                    hedge = (x + out * 2.5, 1.2, z)
                    foliage(scene, hedge, 1.9, pick(rng, GREENS, light * 0.8), 0.8)
            elif far > 3 and near < FAR:
                house(scene, x, max(near, 1.5), far, light)


class _Row(NamedTuple):
    """Things of one kind, one behind the other; lengths are metres."""

    side: int  # whose light falls on them
    draw: Callable[[Scene, float, float, float], None]
    x: float  # the middle of their place
    spread: float  # how far off the middle they may be
    gap: float  # from one to the next, about


def _furnish(scene: Scene) -> None:
    """Cars, trees, posts and people, drawn from far to near."""
    rng, street = scene.rng, scene.street
    rows = [_Row(0, car, 0.0, 0.25, 26.0), _Row(1, oncoming_car, 3.5, 0.25, 22.0)]
    for side, (out, parked) in enumerate(zip(OUTWARDS, (car, oncoming_car), strict=True)):
        kerb, middle = street.kerbs[side], street.pavements[side] / 2
        if street.parked[side]:
            rows.append(_Row(side, parked, kerb - out * 1.1, 0.1, 7.0))
        rows.append(_Row(side, tree, kerb + out * 0.5, 0.1, rng.uniform(9, 18) / street.wooded))
        rows.append(_Row(side, walker, kerb + out * middle, middle - 0.4, rng.uniform(4, 20)))
        for post, gap in ((lamp, 32.0), (sign, 26.0)):
            rows.append(_Row(side, post, kerb + out * 0.45, 0.05, gap * rng.uniform(0.8, 1.8)))
    things = []
    for i, row in enumerate(rows):
        steps = row.gap * rng.uniform(0.75, 1.3, 16)
        for z in 3 + np.cumsum(steps) - row.gap * rng.uniform(0.1, 0.5):
            if 5 < z < 110:
                things.append((float(z), i, row.x + rng.uniform(-row.spread, row.spread)))
    for z, i, x in sorted(things, reverse=True):
        rows[i].draw(scene, x, z, street.sun[rows[i].side])

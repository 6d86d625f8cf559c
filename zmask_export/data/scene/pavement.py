"""What stands on the pavement: lamps, signs and people."""

from __future__ import annotations

import numpy as np

from zmask_export.data.scene.canvas import Scene
from zmask_export.data.scene.colours import BLUE, CLOTHES, HAIR, METAL, RED, SKIN, WHITE, pick


def lamp(scene: Scene, x: float, z: float, light: float) -> None:
    """Draw a street lamp that stands at ``x``, ``z`` metres, its colours times ``light``."""
    top, grey = scene.rng.uniform(5.5, 8), METAL * 0.8 * light
    tip = x - 1.4 * np.sign(x)
    scene.upright(x, z, (0, top), 0.16, grey, taper=0.7)
    scene.fill([(x, top, z), (tip, top + 0.3, z), (tip, top + 0.2, z), (x, top - 0.14, z)], grey)
    scene.upright(tip, z, (top + 0.18, top + 0.34), 0.7, grey * 1.4, taper=0.7)


def sign(scene: Scene, x: float, z: float, light: float) -> None:
    """Draw a traffic sign that stands at ``x``, ``z`` metres, its colours times ``light``."""
    top = scene.rng.uniform(2.3, 3.0)
    kinds = ((RED, WHITE, 20), (BLUE, BLUE * 1.2, 20), (RED, WHITE, 3))
    edge, middle, sides = kinds[scene.rng.integers(len(kinds))]
    scene.upright(x, z, (0, top + 0.2), 0.09, METAL * light)
    scene.disc(x, top, z, 0.42, edge * light, sides)
    scene.disc(x, top, z, 0.29, middle * light, sides)


def walker(scene: Scene, x: float, z: float, light: float) -> None:
    """Draw a person on foot at ``x``, ``z`` metres, the colours times ``light``."""
    rng = scene.rng
    hip, stride = rng.uniform(0.8, 0.92), rng.uniform(0.05, 0.3)
    chin = hip * 1.8
    neck = chin - 0.15
    coat, trousers = pick(rng, CLOTHES, light), pick(rng, CLOTHES, light)
    for side in (-1, 1):
        scene.strip((x + side * stride, 0, z), (x + side * 0.07, hip, z), 0.14, trousers)
        hand, shoulder = (x + side * 0.29, hip, z), (x + side * 0.22, chin - 0.12, z)
        scene.strip(hand, shoulder, 0.1, coat * 0.8)
    scene.upright(x, z, (hip - 0.1, neck), 0.36, coat, taper=1.35)
    scene.upright(x, z, (neck, chin), 0.48, coat, taper=0.4)
    scene.disc(x, chin + 0.14, z, 0.12, HAIR * light)
    scene.disc(x, chin + 0.09, z, 0.105, SKIN * light)

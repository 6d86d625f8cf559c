"""Leaves and trees."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from zmask_export.data.scene.camera import OVERSAMPLING
from zmask_export.data.scene.canvas import Point, Scene
from zmask_export.data.scene.colours import GREENS, Colour, pick
from zmask_export.data.scene.texture import FINEST, smooth_noise


def foliage(scene: Scene, centre: Point, radius: float, green: Colour, density: float) -> None:
    """Draw leaves: overlapping blobs, lit from above, frayed and speckled by noise.

    Args:
        scene: what to draw on.
        centre: middle of the leaves, in metres.
        radius: how far they reach, in metres.
        green: their colour (3,).
        density: how little shines through, 0 to 1.
    """
    rng, grain = scene.branch(), scene.grain
    side = max(4, int(2 * scene.camera.focal * radius / centre[2]))
    n = min(side // OVERSAMPLING, FINEST)
    down, across = np.mgrid[-1:1:48j, -1:1:48j].astype(np.float32)
    depth, lit = np.full((48, 48), -3, np.float32), np.zeros((48, 48), np.float32)
    for angle, away, r in rng.uniform((0, 0, 0.22), (2 * np.pi, 0.6, 0.42), (14, 3)):
        v, u = down - away * np.sin(angle), across - away * np.cos(angle)
        bump = (1 - (u * u + v * v) / (r * r)).astype(np.float32)
        lit = np.where(bump > depth, 0.8 - 0.4 * v / r - 0.2 * down, lit).astype(np.float32)
        depth = np.maximum(depth, bump)
    noise, cubic = partial(smooth_noise, grain, (n, n)), Image.Resampling.BICUBIC
    depth, lit = (np.asarray(Image.fromarray(a).resize((n, n), cubic)) for a in (depth, lit))
    leaves = 0.6 * noise(1.5, 1.5) + 0.6 * noise(n / 50 + 1, n / 50 + 1)
    clumps = noise(n / 12 + 1, n / 12 + 1)
    alpha = np.clip(1.5 * (depth + 1.1 * clumps + 0.9 * leaves + 1.6 * density - 1.0), 0, 1)
    tone = np.clip(lit + 0.4 * leaves + 0.3 * clumps, 0.12, 1.7)[..., None]
    hue = np.array(scene.ink(green, centre[2])[:3])
    pixels = np.concatenate([hue * tone, 255 * alpha[..., None]], 2).clip(0, 255)
    crown = Image.fromarray(pixels.astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    u, v = scene.camera.at(*centre)
    scene.image.paste(crown, (int(u) - side // 2, int(v) - side // 2), crown)


def tree(scene: Scene, x: float, z: float, light: float) -> None:
    """Draw a tree that stands at ``x``, ``z`` metres, its colours times ``light``."""
    rng, leafy = scene.rng, scene.street.leafy
    height, bark = rng.uniform(5, 9), np.array((60, 55, 50)) * light
    fork, width = height * rng.uniform(0.25, 0.4), height * 0.032
    scene.upright(x, z, (0, fork), width, bark, taper=0.8)
    feet, angles = np.full((3, 2), (x, fork)), np.array((-0.5, 0.0, 0.5))
    lengths = np.full(3, height * 0.2)
    for _ in range(5):
        tips = feet + lengths[:, None] * np.stack([np.sin(angles), np.cos(angles)], 1)
        width *= 0.58
        ink, pixels = scene.ink(bark, z, 0.9), max(1, round(scene.camera.focal / z * width))
        for (a, b), (u, v) in zip(feet.tolist(), tips.tolist(), strict=True):
            scene.draw.line((scene.camera.at(a, b, z), scene.camera.at(u, v, z)), ink, pixels)
        feet, angles = tips.repeat(3, 0), angles.repeat(3) + np.tile((-0.45, 0.05, 0.5), len(tips))
        angles += rng.uniform(-0.25, 0.25, len(angles))
        lengths = lengths.repeat(3) * rng.uniform(0.55, 0.85, len(angles))
    # Below this, winter: bare branches.
    if leafy > 0.4:
        crown, green = (x, height * 0.64, z), pick(rng, GREENS, light)
        foliage(scene, crown, height * 0.4, green, 0.2 + 0.5 * leafy)

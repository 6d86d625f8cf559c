"""Buildings: the wall as a flat picture, its place in perspective, the house around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from zmask_export.data.scene.canvas import Point, Scene
from zmask_export.data.scene.colours import (
    DARK_GLASS,
    LIT_GLASS,
    PAINTS,
    ROOFS,
    WALLS,
    WHITE,
    Colour,
    mix,
    pick,
)
from zmask_export.data.scene.texture import FINEST, smooth_noise


def house(scene: Scene, x: float, near: float, far: float, light: float) -> None:
    """Draw one building: its roof, the gable towards the camera, the front along the street.

    Args:
        scene: what to draw on.
        x: where its front is, in metres; its sign tells the side of the street.
        near: ``z`` of the gable, in metres.
        far: ``z`` of the other end, in metres.
        light: factor on its colours.
    """
    rng = scene.rng
    out, height, depth = float(np.sign(x)), rng.uniform(6.5, 12.5), rng.uniform(7, 11)
    wall, roof = pick(rng, WALLS, light), pick(rng, ROOFS, light)
    rise, chimney = rng.uniform(2.0, 4.0) * (rng.random() < 0.7), rng.uniform(near, far)
    back, ridge, peak, eave = x + out * depth, x + out * depth / 2, height + rise, x - out * 0.3
    scene.upright(ridge, chimney, (height, height + rise * 1.4), 1.0, wall)
    slope = [(eave, height, near), (ridge, peak, near), (ridge, peak, far), (eave, height, far)]
    scene.fill(slope, roof)
    scene.fill([(x, height, near), (ridge, peak, near), (back, height, near)], wall * 0.7)
    _hang(scene, (x, height, near), (back, height, near), wall * 0.72)
    _hang(scene, (x, height, near), (x, height, far), wall)


def _hang(scene: Scene, a: Point, b: Point, wall: Colour) -> None:
    """Put a wall up that stands on the ground from under ``a`` to under ``b``, its top corners."""
    # Before the return below: a wall out of view must not change the next one.
    rng = scene.branch()
    corners = (a, b, (b[0], 0, b[2]), (a[0], 0, a[2]))
    quad = np.array([scene.camera.at(*corner) for corner in corners])
    left, top = np.maximum(quad.min(0).astype(int), 0)
    right, bottom = np.minimum(quad.max(0).astype(int) + 1, scene.image.size)
    if right <= left or bottom <= top:
        return
    rows, columns = np.clip(np.ptp(quad, 0)[::-1] * (1, 1.5), 8, min(FINEST, 1.1 * scene.height))
    texels = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)])
    length = float(np.hypot(a[0] - b[0], a[2] - b[2]))
    front = _facade(scene, rng, length, a[1], wall, (int(rows), int(columns))).convert("RGBA")
    size, method = (int(right - left), int(bottom - top)), Image.Transform.PERSPECTIVE
    perspective = _perspective(quad - (left, top), texels)
    seen = front.transform(size, method, perspective, Image.Resampling.BILINEAR)
    scene.image.paste(seen, (int(left), int(top)), seen)


def _perspective(pixels: NDArray[np.float64], texels: NDArray[np.float64]) -> list[float]:
    """The eight numbers of the rational map that takes the corners (4, 2) to ``texels`` (4, 2).

    Pillow wants it in this direction, from pixels of the scene to pixels of the texture.
    """
    system = [
        equation
        for (u, v), (s, t) in zip(pixels, texels, strict=True)
        for equation in ((u, v, 1, 0, 0, 0, -s * u, -s * v), (0, 0, 0, u, v, 1, -t * u, -t * v))
    ]
    return np.linalg.solve(np.array(system), texels.ravel()).tolist()


def _facade(
    scene: Scene,
    rng: np.random.Generator,
    length: float,
    height: float,
    wall: Colour,
    shape: tuple[int, int],
) -> Image.Image:
    """A wall with windows, doors or a shop as seen square on, ``shape`` (rows, columns) large."""
    down, across = shape[0] / height, shape[1] / length
    brick = 0.09 * scene.grain.standard_normal(shape, np.float32)
    brick += 0.08 * smooth_noise(scene.grain, shape, 0.3 * down + 1, 0.6 * across + 1)
    brick += np.linspace(1.08, 0.86, shape[0], dtype=np.float32)[:, None]
    image = Image.fromarray((wall * brick[..., None]).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)

    def box(x: float, y: float, w: float, h: float, colour: Colour) -> None:
        left, top = x * across, shape[0] - (y + h) * down
        corners = (left, top, left + max(w * across, 1), top + max(h * down, 1))
        draw.rectangle(corners, fill=scene.ink(colour, 0)[:3])

    def window(x: float, y: float, w: float, h: float, frame: Colour) -> None:
        glass = mix(DARK_GLASS, LIT_GLASS, rng.random() ** 3)
        box(x - 0.1, y - 0.16, w + 0.2, h + 0.34, trim)
        box(x, y, w, h, frame)
        box(x + 0.07, y + 0.07, w - 0.14, h - 0.2, glass)
        box(x + 0.07, y + h * 0.5, w - 0.14, h * 0.4, glass * 1.25)
        box(x + w / 2 - 0.03, y, 0.06, h, frame)
        box(x, y + h - 0.13, w, 0.13, wall * 0.35)

    light = float(wall.mean()) / 130
    frame, board = WHITE * min(light, 1) * rng.uniform(0.5, 1), pick(rng, PAINTS, light)
    trim = mix(wall, WHITE * light, rng.uniform(0.05, 0.5))
    bays = max(1, round(length / rng.uniform(1.9, 3.0)))
    bay, w, h = length / bays, rng.uniform(0.9, 1.4), rng.uniform(1.3, 1.9)
    shop = rng.random() < 0.45
    if shop:
        box(0.2, 0, length - 0.4, 3.1, board)
        box(length * 0.3, 2.65, length * 0.4, 0.25, mix(board, WHITE, 0.6))
    for floor in range(int((height - 0.7) / 3.0)):
        for x in (np.arange(bays) + 0.5) * bay:
            if shop and not floor:
                window(x - bay * 0.42, 0.5, bay * 0.84, 1.9, board * 0.7)
            elif floor or rng.random() < 0.75:
                window(x - w / 2, floor * 3.0 + 0.9, w, h, frame)
            else:
                box(x - 0.6, 0, 1.2, 2.4, trim)
                box(x - 0.5, 0, 1.0, 2.2, board)
    box(0, height - 0.5, length, 0.5, wall * 0.6)
    box(0, height - 0.35, length, 0.3, trim)
    return image

"""What lies behind everything else: the sky, and the ground with its kerbs and lanes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from zmask_export.data.scene.camera import EYE, OVERSAMPLING
from zmask_export.data.scene.canvas import Scene
from zmask_export.data.scene.colours import WHITE, mix
from zmask_export.data.scene.street import FAR, OUTWARDS
from zmask_export.data.scene.texture import Floats, smooth_noise


def paint_backdrop(scene: Scene) -> None:
    """Cover the canvas with sky above the horizon and with ground below it."""
    # At the image's size: nothing here has edges that would show it.
    horizon = int(scene.camera.cy / OVERSAMPLING)
    backdrop = np.concatenate([_sky(scene, horizon), _ground(scene, horizon)])
    small = Image.fromarray(backdrop.clip(0, 255).astype(np.uint8))
    scene.image.paste(small.resize(scene.image.size, Image.Resampling.BILINEAR))


def mark_lanes(scene: Scene) -> None:
    """Draw the dashes in the middle of the road and the lines along its edges."""
    rng, street = scene.rng, scene.street
    paint, alpha, gap = WHITE * 0.97, rng.uniform(0.45, 0.8), rng.uniform(2.5, 6.0)
    for z in np.arange(rng.uniform(2, 5), FAR, 2 + gap):
        scene.strip((1.9, 0, z), (1.9, 0, z + 2), 0.12, paint, alpha)
    for out, kerb, parked in zip(OUTWARDS, street.kerbs, street.parked, strict=True):
        if rng.random() < 0.7:
            x = kerb - out * (2.3 if parked else 0.4)
            scene.strip((x, 0, 1.5), (x, 0, FAR), 0.1, paint, alpha * 0.8)


def _sky(scene: Scene, rows: int) -> Floats:
    """Clouds that thin out towards the horizon: (rows, W, 3), 0 to 255."""
    street, grain = scene.street, scene.grain
    shape, scale = (rows // 3 + 1, scene.width // 3 + 1), scene.height / 3
    octaves = [smooth_noise(grain, shape, scale / k, 2.4 * scale / k) / k**0.8 for k in (2, 5, 12)]
    cloud = np.sum(octaves, axis=0)[..., None]
    cover = np.clip(1.6 * cloud + 1.5 * street.cloud - 0.5, 0, 1)
    fall = np.linspace(0, 1, shape[0])[:, None, None] ** 1.5
    white = street.haze * (1 - (0.1 + 0.12 * street.cloud) * cloud)
    sky = mix(mix(street.zenith, street.haze, fall), white, cover).clip(0, 255).astype(np.uint8)
    smooth = Image.fromarray(sky).resize((scene.width, rows), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32)


def _ground(scene: Scene, top: int) -> Floats:
    """Asphalt, kerbs and paving from row ``top`` down: (H - top, W, 3), 0 to 255.

    Every pixel below the horizon is projected back onto the road.
    """
    street, camera, grain = scene.street, scene.camera, scene.grain
    down = np.arange(top, scene.height, dtype=np.float32)[:, None] + 0.5 - camera.cy / OVERSAMPLING
    pixel = (EYE / np.maximum(down, 0.5)).astype(np.float32)
    z = camera.focal / OVERSAMPLING * pixel
    across = np.arange(scene.width, dtype=np.float32) + 0.5 - camera.cx / OVERSAMPLING
    x = across * pixel
    near = np.minimum(1, 12 / z)
    tile = smooth_noise(grain, (256, 256), 3, 3) + 0.6 * smooth_noise(grain, (256, 256), 40, 40)
    seamless = np.pad(tile, (0, 256), "symmetric")
    coarse = seamless[(z * 20).astype(int) % 512, (x * 40).astype(int) % 512]
    tracks = 0.06 * np.cos((x - 0.2) * 3.7)
    fine = grain.standard_normal(x.shape, np.float32)
    tone = 1 + near * (0.05 * coarse + 0.05 * fine + tracks)
    joints = ((x % 0.75 < 0.05) | (z % 0.9 < 0.06)) * 0.16 * np.minimum(1, 8 / z)

    def outside(edge: float, out: int) -> Floats:
        return np.clip((x - edge) * out / pixel + 0.5, 0, 1)

    for kerb, out in zip(street.kerbs, OUTWARDS, strict=True):
        gutter, stone, paving = (outside(kerb + out * d, out) for d in (-0.25, 0.0, 0.16))
        tone *= (1 - 0.25 * gutter) * (1 + 0.9 * stone) * (1 - (0.22 + 0.7 * joints) * paving)
    # The dim row of buildings throws its shadow over the road beside it.
    dim = int(np.argmin(street.sun))
    shadow = outside(0.65 * street.kerbs[dim], OUTWARDS[dim])
    tone *= 1.12 - (1.0 - 0.75 * street.sun[dim]) * shadow
    far = np.clip(1 - z / 300, 0.6, 1)[..., None]
    return mix(street.haze * 0.5, street.asphalt * tone[..., None], far).astype(np.float32)

"""The small inputs that tests of the command line are given: drawn scenes, noise, random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from zmask_export.data.scene import draw_scene
from zmask_export.models import registry, weights

SIZE = (96, 128)
PATCH_SIZE = (28, 37)
PRESET = """\
about: A small input and a small grid, for tests.
input_size: [96, 128]
shallow_kernels: [[16, 20], [8, 10]]
deep_kernels: [[16, 20]]
grid: [30, 40]
registration: aligned
fill: mean
tolerances:
  fp32:
    logits_atol: 1.0e-3
    logits_rtol: 1.0e-3
    logits_outliers: 0.001
    score_rtol: 1.0e-4
    mask_iou: 0.999
    heatmap_rtol: 1.0e-4
"""


def save_scene(path: Path, seed: int, size: tuple[int, int] = SIZE) -> Path:
    """Draw a street scene into an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_scene(size, seed)).save(path)
    return path


def draw_inputs(root: Path) -> None:
    """Write them into a new folder."""
    root.mkdir()
    rng = np.random.default_rng(0)
    (root / "tiny.yaml").write_text(PRESET)
    for seed in range(3):
        save_scene(root / "images" / f"{seed}.png", seed)
    noise = rng.integers(0, 256, (*PATCH_SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "noise.png")
    network = weights.random_network(registry.get("icnet"), seed=1)
    save_file(network.state_dict(), root / "own.safetensors")
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            save_scene(root / "camvid" / split / "images" / f"{index}.png", 10 + index)
            labels = root / "camvid" / split / "labels" / f"{index}.png"
            labels.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 12, SIZE, dtype=np.uint8)).save(labels)

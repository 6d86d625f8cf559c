"""Small inputs on disk: drawn scenes, labels, patches, settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from killing.network import CLASSES
from zmask_export.data.scene import draw_scene

SIZE = (96, 128)
PATCH_SIZE = (28, 37)
SCENES = 6
IMAGES = {"train": 160, "val": 6}
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
PRESET = {
    "about": "A network to kill verbs with.",
    "input_size": SIZE,
    "shallow": ["stem", "body"],
    "deep": ["deep"],
    "classes": [f"class-{index}" for index in range(CLASSES)],
}


class Inputs:
    """What verbs are given.

    Args:
        folder: where to write them; an empty folder.

    Attributes:
        network: options that name the network.
        data: scenes with random labels in CamVid's layout.
        images: some of them, without labels.
        patch: of noise.
        study: of the bundle; it names patches that are all noise.
        fitted, bundle: where cases put the calibration and the bundle that others need.
    """

    def __init__(self, folder: Path) -> None:
        self.data, self.patch = folder / "camvid", folder / "noise.png"
        self.images = self.data / "train" / "images"
        self.study = folder / "study.yaml"
        self.fitted, self.bundle = folder / "fitted.safetensors", folder / "street"
        preset = folder / "preset.yaml"
        self.network = ("--module", "killing.network:make", "--preset", str(preset))
        rng = np.random.default_rng(0)
        for path in (self.patch, *(folder / f"beta-{value}.png" for value in BETAS)):
            noise = rng.integers(0, 256, (*PATCH_SIZE, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
        scenes = [draw_scene(SIZE, seed) for seed in range(SCENES)]
        for split, count in IMAGES.items():
            for index in range(count):
                # Drawing takes longer than a shift to the side.
                image = np.roll(scenes[index % SCENES], index, axis=1)
                labels = rng.integers(0, CLASSES + 1, SIZE, dtype=np.uint8)
                for kind, pixels in (("images", image), ("labels", labels)):
                    path = self.data / split / kind / f"{index:03}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
        network = {
            "bundle": self.bundle.name,
            "patches": {"L": self.patch.name},
            "beta": {"files": "beta-{value}.png", "values": BETAS},
        }
        study = {
            "about": "A study of noise.",
            "data": str(self.data),
            "resamples": 50,
            "networks": {"street": network},
        }
        # JSON is YAML, too.
        preset.write_text(json.dumps(PRESET), "utf-8")
        self.study.write_text(json.dumps(study), "utf-8")

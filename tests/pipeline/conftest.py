"""A small study, and what it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import PATCH_SIZE, Inputs
from zmask_export.defense.baselines.masknet import MaskNet, save_masknet

BETAS = [0.5, 1.0]


@pytest.fixture(scope="module")
def studies(inputs: Inputs, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and what it names; the patch S is not there."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(5)
    for name in ("L", "beta-0.5", "beta-1.0", "flag-0.0"):
        noise = rng.integers(0, 256, (*PATCH_SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{name}.png")
    torch.manual_seed(0)
    save_masknet(folder / "masknet.safetensors", MaskNet())
    network = {
        "bundle": str(bundle),
        "patches": {"L": "L.png", "S": "S.png"},
        "masknet": "masknet.safetensors",
        "beta": {"files": "beta-{value}.png", "values": BETAS},
        "alpha": {"flag": {"files": "flag-{value}.png", "values": [0]}},
    }
    content = {
        "about": "A small study",
        "data": str(inputs.camvid),
        "resamples": 50,
        "networks": {"icnet": network, "other": {"bundle": "engines/other"}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return folder


def changed(studies: Path, name: str, **network: object) -> Path:
    """A study with other settings of its network; paths start at the first study's folder."""
    content = yaml.safe_load((studies / "study.yaml").read_text())
    content["networks"]["icnet"].update(network)
    path = studies / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path

"""A small study and what it names, and a tiny detector that finds bright rectangles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.attack import detectors
from tests.conftest import Inputs, Make, contents
from tests.drawn import PATCH_SIZE
from tests.small import as_float, random_calibration, split_flags
from zmask_export.artifacts.calibration import Calibration
from zmask_export.defense.baselines.masknet import MaskNet, save_masknet
from zmask_export.export.bare import export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.models.detection.network import DetectorNetwork, PlainDetector
from zmask_export.pipeline.bundle import signature_of, write_bundle
from zmask_export.pipeline.progress import Advance, Silent
from zmask_export.presets import find
from zmask_export.spec import DetectorLimits, Policy
from zmask_export.verify.parity import ParityReport

BETAS = [0.5, 1.0]
CLASSES = ("background", "car", "pedestrian", "bicyclist")


class Watch(Silent):
    """Remembers how many images each bar was for; interrupts at image ``stop`` of a network's bar."""

    def __init__(self, stop: int | None = None) -> None:
        self.totals: dict[str, int] = {}
        self.stop = stop

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        self.totals[label] = total

        def advance(done: int, note: str = "") -> None:
            if done == self.stop:
                raise KeyboardInterrupt

        yield advance


def bytes_of(folder: Path) -> dict[str, bytes]:
    """File to content, below a folder."""
    return {n: (folder / n).read_bytes() for n in contents(folder) if (folder / n).is_file()}


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


@dataclass(frozen=True)
class TinyDetector:
    """A trained detector, and what evaluating it takes.

    Attributes:
        bare: the network.
        calibration: made up, with a threshold that splits clean from patched images.
        bundle: policy gated.
        camvid: four pictures in CamVid's layout.
        patch: of noise, 20 x 26 pixels.
    """

    bare: DetectorNetwork
    calibration: Calibration
    bundle: Path
    camvid: Path
    patch: Path


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory, make_once: Make) -> TinyDetector:
    root = tmp_path_factory.mktemp("detector")
    camvid = root / "camvid"
    for folder in ("images", "labels"):
        (camvid / "val" / folder).mkdir(parents=True)
    # In each of these one rectangle is large enough to count, and one is not.
    samples = [detectors.picture(seed, count=2) for seed in (4, 7, 8, 9)]
    for index, sample in enumerate(samples):
        Image.fromarray(sample.image).save(camvid / "val" / "images" / f"{index}.png")
        labels = np.zeros(detectors.SIZE, np.uint8)
        for box, label in zip(sample.boxes.astype(int), sample.labels, strict=True):
            labels[box[1] : box[3], box[0] : box[2]] = 7 + label
        Image.fromarray(labels).save(camvid / "val" / "labels" / f"{index}.png")
    noise = np.random.default_rng(3).integers(0, 256, (20, 26, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "noise.png")

    network = detectors.taught("retinanet", 100, make_once)
    bare = DetectorNetwork(network, detectors.PREPROCESS, dict(detectors.PATHS))
    images = np.stack([sample.image for sample in samples] * 2)
    images[4:, 30:50, 30:56] = noise
    calibration = random_calibration(bare, detectors.DEFENSE, size=detectors.SIZE)
    calibration = split_flags(bare, calibration, torch.from_numpy(as_float(images)))
    graph = export_bare(PlainDetector(bare, detectors.SIZE), detectors.SIZE, None)
    fused = fuse(graph, calibration, FuseOptions(Policy.GATED))
    tolerances = find("camvid-retinanet", None).preset.tolerances["fp32"]
    parity = ParityReport(
        runner="test", policy="gated", threshold=calibration.require_fitted()[1], band=0.0,
        tolerances=tolerances, comparisons=(),
    )  # fmt: skip
    write_bundle(
        root / "tiny", force=False, calibration=calibration, policy=Policy.GATED, classes=CLASSES,
        limits=DetectorLimits(), tolerances=tolerances, batch=None, onnx_model=fused.to_bytes(),
        signature=signature_of(fused), engines=(), engine_batch=None, parity=parity,
    )  # fmt: skip
    return TinyDetector(bare, calibration, root / "tiny", camvid, root / "noise.png")

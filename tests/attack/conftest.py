"""A network that a patch can mislead, its statistics and its images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.attack import detectors
from tests.attack.detectors import DEFENSE
from tests.conftest import Make
from tests.small import random_calibration
from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.losses import pixel_losses
from zmask_export.attack.scene import Scene
from zmask_export.attack.segmentation import PixelAttack
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.models.bare import BareNetwork
from zmask_export.models.detection.network import DetectorNetwork
from zmask_export.spec import PREPROCESS

SIZE = (40, 48)


def interrupt(at: int) -> Callable[[int, float], None]:
    """An ``on_epoch`` that stops the run after an epoch, as Ctrl-C does."""

    def on_epoch(epoch: int, loss: float) -> None:
        if epoch == at:
            raise KeyboardInterrupt

    return on_epoch


class Network(nn.Module):
    """A small network that sees far enough for a patch to act outside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.far = nn.Conv2d(8, 8, 5, padding=8, dilation=4)
        self.head = nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            for layer in (self.near, self.far, self.head):
                layer.weight *= 3  # sure of itself, and easily moved

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.far(F.relu(self.near(x))))
        return F.interpolate(self.head(h), x.shape[2:], mode="bilinear")


@pytest.fixture
def bare() -> BareNetwork:
    torch.manual_seed(1)
    return BareNetwork(Network(), PREPROCESS["imagenet"], {"near": "near", "far": "far"})


@pytest.fixture
def samples(bare: BareNetwork) -> list[Sample]:
    """Pictures labelled by the network itself, one row unlabelled."""
    samples = []
    for index in range(5):
        image = np.random.default_rng(index).integers(90, 160, (*SIZE, 3), np.uint8)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            labels = bare.predict(x)["logits"].argmax(1)[0].byte().numpy()
        labels[0] = IGNORE
        samples.append(Sample(Path(f"{index}.png"), image, labels))
    return samples


@pytest.fixture
def calibration(bare: BareNetwork) -> Calibration:
    """Fitted; a threshold that some images pass and others do not."""
    made = random_calibration(bare, DEFENSE, size=SIZE, threshold=0.15)
    for tap in made.std:
        made.std[tap] *= 4  # heatmaps of noise patches stay off the flat ends of the sigmoids
    return made


@pytest.fixture(scope="session")
def trained(make_once: Make) -> DetectorNetwork:
    """An SSD that has learnt to find rectangles."""
    network = detectors.taught("ssd", 250, make_once)
    return DetectorNetwork(network, detectors.PREPROCESS, dict(detectors.PATHS))


@pytest.fixture
def scene(bare: BareNetwork) -> Scene:
    """Two images of noise with a rectangle each, in float32."""
    generator = torch.Generator().manual_seed(4)
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, 5:20, 8:30] = True
    masks[1, 20:36, 20:40] = True
    labels = torch.randint(0, 4, (2, *SIZE), generator=generator)
    with torch.no_grad():
        outputs, features = bare(torch.rand(2, 3, *SIZE, generator=generator))
    return Scene(PixelAttack(pixel_losses(outputs["logits"], labels, ~masks)), features, masks)

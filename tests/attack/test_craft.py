from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export.attack.craft import CraftSettings, craft
from zmask_export.attack.losses import smoothness
from zmask_export.attack.placement import paste, patch_masks, random_placement
from zmask_export.attack.transforms import Appearance
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.errors import DatasetError, PatchError
from zmask_export.models.registry import normalise
from zmask_export.models.weights import fingerprint
from zmask_export.spec import PREPROCESS

SIZE = (40, 48)
PREPARE = PREPROCESS["imagenet"]
SETTINGS = CraftSettings(size=(14, 16), epochs=6, batch=2)


class _Network(nn.Module):
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
def network() -> _Network:
    torch.manual_seed(1)
    return _Network().eval()


@pytest.fixture
def samples(network: _Network) -> list[Sample]:
    """Pictures labelled by the network itself, one row unlabelled."""
    samples = []
    for index in range(5):
        image = np.random.default_rng(index).integers(90, 160, (*SIZE, 3), np.uint8)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            labels = network(normalise(x, PREPARE)).argmax(1)[0].byte().numpy()
        labels[0] = IGNORE
        samples.append(Sample(Path(f"{index}.png"), image, labels))
    return samples


def _attack(network: nn.Module, samples: list[Sample], patch: Tensor) -> tuple[float, float]:
    """Cross-entropy, and share of pixels still right, outside a patch at fixed places."""
    rng = np.random.default_rng(99)
    losses, right = [], []
    for sample in samples * 4:
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float() / 255
        place = random_placement(rng, SIZE, (patch.shape[1], patch.shape[2]))
        labels = torch.from_numpy(sample.labels)[None].long()
        counted = ~patch_masks([place], SIZE) & (labels != IGNORE)
        with torch.inference_mode():
            logits = network(normalise(paste(image, [patch], [place]), PREPARE))
        losses.append(
            F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")[counted]
        )
        right.append((logits.argmax(1) == labels)[counted])
    return float(torch.cat(losses).mean()), float(torch.cat(right).float().mean())


def _start(settings: CraftSettings) -> Tensor:
    rng = np.random.default_rng(settings.seed)
    return torch.from_numpy(rng.random((3, *settings.size), dtype=np.float32))


def test_crafting_misleads_the_network(network: _Network, samples: list[Sample]) -> None:
    settings, told = replace(SETTINGS, epochs=20, smoothness=0.0), []
    before = fingerprint(network)
    patch, loss = craft(
        network, PREPARE, samples, settings, on_epoch=lambda n, value: told.append((n, value))
    )
    assert patch.shape == (3, 14, 16)
    assert patch.min() >= 0
    assert patch.max() <= 1
    assert not patch.requires_grad
    assert [n for n, _ in told] == list(range(1, 21))
    assert told[-1][1] == loss
    ce, right = _attack(network, samples, patch)
    random_ce, random_right = _attack(network, samples, _start(settings))
    assert ce > 1.4 * random_ce
    assert right < random_right - 0.15
    assert fingerprint(network) == before


def test_smoothness_makes_the_patch_smoother(network: _Network, samples: list[Sample]) -> None:
    rough, smooth = (
        craft(network, PREPARE, samples, replace(SETTINGS, smoothness=weight))[0]
        for weight in (0.0, 5.0)
    )
    assert smoothness(smooth) < 0.7 * smoothness(rough)


def test_a_patch_is_that_of_its_seed(network: _Network, samples: list[Sample]) -> None:
    settings = replace(SETTINGS, epochs=2)
    first, again = (craft(network, PREPARE, samples, settings) for _ in range(2))
    other = craft(network, PREPARE, samples, replace(settings, seed=1))
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert not torch.equal(first[0], other[0])


def test_balancing_the_classes_changes_the_attack(network: _Network, samples: list[Sample]) -> None:
    settings = replace(SETTINGS, epochs=2)
    balanced = replace(settings, balanced=True)
    first, again = (craft(network, PREPARE, samples, balanced)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, craft(network, PREPARE, samples, settings)[0])


def _interrupt(at: int) -> Callable[[int, float], None]:
    def on_epoch(epoch: int, loss: float) -> None:
        if epoch == at:
            raise KeyboardInterrupt

    return on_epoch


@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupted_run_goes_on_to_the_same_patch(
    tmp_path: Path, network: _Network, samples: list[Sample], at: int
) -> None:
    whole, whole_loss = craft(network, PREPARE, samples, SETTINGS)
    checkpoint, told = tmp_path / "progress", []
    with pytest.raises(KeyboardInterrupt):
        craft(network, PREPARE, samples, SETTINGS, checkpoint=checkpoint, on_epoch=_interrupt(at))
    patch, loss = craft(
        network,
        PREPARE,
        samples,
        SETTINGS,
        checkpoint=checkpoint,
        on_epoch=lambda n, _: told.append(n),
    )
    assert told == list(range(at + 1, 7))
    assert torch.equal(patch, whole)
    assert loss == whole_loss


def test_a_finished_checkpoint_gives_its_patch_at_once(
    tmp_path: Path, network: _Network, samples: list[Sample]
) -> None:
    path = tmp_path / "progress"
    whole = craft(network, PREPARE, samples, SETTINGS, checkpoint=path)
    again = craft(network, PREPARE, samples, SETTINGS, checkpoint=path, on_epoch=_interrupt(1))
    assert torch.equal(again[0], whole[0])
    assert again[1] == whole[1]


@pytest.fixture
def checkpoint(tmp_path: Path, network: _Network, samples: list[Sample]) -> Path:
    """Progress after two epochs."""
    path = tmp_path / "progress"
    with pytest.raises(KeyboardInterrupt):
        craft(
            network,
            PREPARE,
            samples,
            SETTINGS,
            checkpoint=path,
            identity="a",
            on_epoch=_interrupt(2),
        )
    return path


def _first_epoch(
    network: nn.Module, samples: list[Sample], settings: CraftSettings, path: Path, identity: str
) -> tuple[int, Tensor]:
    """The epoch that a run starts with, and its patch."""
    told: list[int] = []
    patch, _ = craft(
        network,
        PREPARE,
        samples,
        settings,
        checkpoint=path,
        identity=identity,
        on_epoch=lambda n, _: told.append(n),
    )
    return told[0], patch


def test_a_checkpoint_of_another_run_is_ignored(
    checkpoint: Path, network: _Network, samples: list[Sample]
) -> None:
    data = checkpoint.read_bytes()
    assert _first_epoch(network, samples, SETTINGS, checkpoint, "a")[0] == 3
    for settings, identity in (
        (SETTINGS, "other weights"),
        (replace(SETTINGS, seed=3), "a"),
        (replace(SETTINGS, appearance=Appearance(noise=0.0)), "a"),
        (replace(SETTINGS, size=(10, 10)), "a"),
    ):
        checkpoint.write_bytes(data)
        first, patch = _first_epoch(network, samples, settings, checkpoint, identity)
        assert first == 1
        assert torch.equal(patch, craft(network, PREPARE, samples, settings)[0])


@pytest.mark.parametrize("missing", ["patch", "exp_avg", "step", None])
def test_a_damaged_checkpoint_is_ignored(
    checkpoint: Path, network: _Network, samples: list[Sample], missing: str | None
) -> None:
    data = checkpoint.read_bytes()
    if missing is None:
        checkpoint.write_bytes(data[: len(data) // 2])
    else:
        tensors = load_file(checkpoint)
        del tensors[missing]
        size = int.from_bytes(data[:8], "little")
        save_file(tensors, checkpoint, json.loads(data[8 : 8 + size])["__metadata__"])
    first, patch = _first_epoch(network, samples, SETTINGS, checkpoint, "a")
    assert first == 1
    assert torch.equal(patch, craft(network, PREPARE, samples, SETTINGS)[0])


def test_the_learning_rate_falls_to_a_tenth() -> None:
    rates = [SETTINGS.learning_rate(epoch) for epoch in range(SETTINGS.epochs + 1)]
    assert rates[0] == pytest.approx(SETTINGS.lr)
    assert rates[-1] == pytest.approx(SETTINGS.lr / 10)
    assert rates == sorted(rates, reverse=True)


def test_crafting_needs_images_that_the_patch_fits(
    network: _Network, samples: list[Sample]
) -> None:
    with pytest.raises(DatasetError, match="no image"):
        craft(network, PREPARE, [], SETTINGS)
    with pytest.raises(PatchError, match="does not fit"):
        craft(network, PREPARE, samples, replace(SETTINGS, size=(SIZE[0] + 1, 4)))

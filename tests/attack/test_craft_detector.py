"""Patches against detectors: what they do, that they come again, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.attack.conftest import interrupt
from tests.attack.detectors import DEFENSE, KINDS, SIZE, bare, picture
from tests.small import random_calibration
from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.craft import Crafted, craft, random_patch
from zmask_export.attack.detection_effect import measure_detector
from zmask_export.attack.detector_losses import CLASS_LOSSES, detector_losses
from zmask_export.attack.overactivation import OverActivation
from zmask_export.attack.placement import paste, patch_masks, random_placement
from zmask_export.attack.scene import Scene
from zmask_export.attack.settings import CraftSettings
from zmask_export.attack.targets import Targets
from zmask_export.attack.transforms import Appearance
from zmask_export.data.coco import BoxSample
from zmask_export.data.segmentation import Sample
from zmask_export.errors import DatasetError, PatchError, UsageError, WeightsError
from zmask_export.models.detection.network import DetectorNetwork
from zmask_export.models.weights import fingerprint

SETTINGS = CraftSettings(size=(18, 20), epochs=4, batch=2, goal="misclassify")
LONG = replace(SETTINGS, epochs=12, batch=4, smoothness=0.0)
GOALS: dict[str, dict[str, Any]] = {
    "misclassify": {},
    "untargeted": {"goal": "untargeted"},
    "false-detection": {"goal": "false-detection", "target_class": 2},
}


@pytest.fixture(scope="module")
def pictures() -> list[BoxSample]:
    return [picture(seed) for seed in range(5)]


def _calibration(network: DetectorNetwork) -> Calibration:
    return random_calibration(network, DEFENSE, size=SIZE, threshold=0.15)


def _losses(network: DetectorNetwork, patch: Tensor) -> tuple[float, float]:
    """Losses on classes and on boxes with a patch at fixed places."""
    rng = np.random.default_rng(99)
    samples = [picture(k) for k in range(12)]
    images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2) / 255
    places = [random_placement(rng, SIZE, (patch.shape[1], patch.shape[2])) for _ in samples]
    targets = [Targets("misclassify").of(s, p) for s, p in zip(samples, places, strict=True)]
    kept = [k for k, target in enumerate(targets) if len(target["labels"])]
    attacked = paste(images, [patch] * len(images), places)
    with torch.inference_mode():
        losses = detector_losses(
            network.network, [attacked[k] for k in kept], [targets[k] for k in kept], 0
        )
    sums = [0.0, 0.0]
    for name, loss in losses.items():
        sums[name not in CLASS_LOSSES] += float(loss)
    return sums[0], sums[1]


def test_crafting_does_what_the_goal_says(trained: DetectorNetwork) -> None:
    samples = [picture(k) for k in range(12)]
    before = fingerprint(trained.network)
    made = {name: craft(trained, samples, replace(LONG, **how)) for name, how in GOALS.items()}
    assert fingerprint(trained.network) == before
    assert not any(module.training for module in trained.network.modules())
    noise = random_patch(LONG.size, LONG.seed)
    calm = _losses(trained, noise)
    losses = {name: _losses(trained, crafted.patch) for name, crafted in made.items()}
    assert losses["misclassify"][0] > 1.5 * calm[0]
    assert losses["untargeted"][0] > 1.5 * calm[0]
    assert losses["untargeted"][1] > 1.1 * losses["misclassify"][1]
    found = {
        name: measure_detector(trained, samples, patch, target_class=2)
        for name, patch in (("noise", noise), *((n, c.patch) for n, c in made.items()))
    }
    assert found["false-detection"].invented == 1
    assert found["noise"].invented < 0.3  # type: ignore[operator]
    assert found["untargeted"].found_patched < found["noise"].found_patched - 0.1  # type: ignore[operator]


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_is_that_of_its_seed(kind: str, goal: str, pictures: list[BoxSample]) -> None:
    settings = replace(SETTINGS, epochs=2, **GOALS[goal])
    torch.manual_seed(1)
    first = craft(bare(kind), pictures, settings)
    torch.manual_seed(2)
    again = craft(bare(kind), pictures, settings)
    other = craft(bare(kind), pictures, replace(settings, seed=1))
    assert torch.equal(first.patch, again.patch)
    assert first.loss == again.loss
    assert not torch.equal(first.patch, other.patch)
    assert first.patch.shape == (3, 18, 20)
    assert 0 <= first.patch.min() <= first.patch.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_goes_on_to_the_same_patch(
    tmp_path: Path, kind: str, pictures: list[BoxSample]
) -> None:
    network = bare(kind)
    told: list[int] = []

    def run(**how: Any) -> Crafted:
        return craft(network, pictures, SETTINGS, **how)

    whole = run()
    path = tmp_path / "progress"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path, on_epoch=interrupt(2))
    again = run(checkpoint=path, on_epoch=lambda n, _: told.append(n))
    assert torch.equal(again.patch, whole.patch)
    assert again.loss == whole.loss
    assert told == [3, 4]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": replace(SETTINGS, goal="untargeted")},
        {"settings": replace(SETTINGS, box_weight=0.5)},
        {"boxes": True},
        {"crowd": True},
    ],
)
def test_a_checkpoint_of_another_run_is_ignored(
    tmp_path: Path, change: dict[str, Any], pictures: list[BoxSample]
) -> None:
    network, path = bare("ssd"), tmp_path / "progress"
    with pytest.raises(KeyboardInterrupt):
        craft(network, pictures, SETTINGS, checkpoint=path, on_epoch=interrupt(2))
    first = pictures[0]
    if "boxes" in change:
        first = replace(first, boxes=first.boxes + np.float32(0.25))
    if "crowd" in change:
        first = replace(first, crowd=~first.crowd)
    told: list[int] = []
    craft(
        network,
        [first, *pictures[1:]],
        change.get("settings", SETTINGS),
        checkpoint=path,
        on_epoch=lambda n, _: told.append(n),
    )
    assert told == [1, 2, 3, 4]


def _over_activation(network: DetectorNetwork, calibration: Calibration, patch: Tensor) -> float:
    rng = np.random.default_rng(9)
    samples = [picture(k) for k in range(5)]
    images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2) / 255
    places = [random_placement(rng, SIZE, (18, 20)) for _ in samples]
    with torch.inference_mode():
        _, features = network(paste(images, [patch] * len(images), places))
        # The loss looks at no attack.
        scene = Scene(None, features, patch_masks(places, SIZE))  # type: ignore[arg-type]
        return float(OverActivation(calibration)(scene))


def test_beta_trades_the_attack_for_calm(
    trained: DetectorNetwork, pictures: list[BoxSample]
) -> None:
    calibration = _calibration(trained)
    calm, loud = (
        craft(trained, pictures, replace(LONG, beta=beta), calibration=calibration)
        for beta in (0.1, 1.0)
    )
    assert loud.evasion is None
    assert calm.evasion is not None
    low, high = (_over_activation(trained, calibration, made.patch) for made in (calm, loud))
    assert low < 0.7 * high
    assert _losses(trained, calm.patch)[0] < _losses(trained, loud.patch)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("aware", ["mask", "flag"])
def test_the_defense_is_attacked_through_the_detector_s_taps(
    kind: str, aware: Any, pictures: list[BoxSample]
) -> None:
    network = bare(kind)
    calibration = _calibration(network)
    settings = replace(SETTINGS, aware=aware, alpha=0.2, batch=5, aware_images=2)
    told: list[float] = []
    made = craft(
        network, pictures, settings, calibration=calibration, on_epoch=lambda n, v: told.append(v)
    )
    assert made.evasion is not None
    plain = craft(network, pictures, replace(settings, alpha=1.0), calibration=calibration)
    assert plain.evasion is None
    assert not torch.equal(made.patch, plain.patch)
    without = replace(SETTINGS, batch=5)
    assert torch.equal(craft(network, pictures, without).patch, plain.patch)


def test_images_without_boxes_do_not_count(pictures: list[BoxSample]) -> None:
    bald = [picture(seed, count=0) for seed in (20, 21)]
    with pytest.raises(DatasetError, match="none with a box"):
        craft(bare("ssd"), bald, SETTINGS)
    made = craft(bare("ssd"), bald, replace(SETTINGS, **GOALS["false-detection"]))
    assert made.loss > 0
    mixed = [bald[0], pictures[0], bald[1]]
    told: list[int] = []
    made = craft(bare("ssd"), mixed, SETTINGS, on_epoch=lambda n, _: told.append(n))
    assert made.loss != 0
    assert told == [1, 2, 3, 4]


def test_a_patch_that_covers_every_box_is_refused(
    tmp_path: Path, pictures: list[BoxSample]
) -> None:
    whole = replace(SETTINGS, size=SIZE, epochs=2, appearance=Appearance(scale=(1, 1)))
    path = tmp_path / "progress"
    with pytest.raises(PatchError, match="covered the boxes of every image"):
        craft(bare("ssd"), pictures, replace(whole, goal="untargeted"), checkpoint=path)
    assert not path.exists()
    false = craft(bare("ssd"), pictures, replace(whole, **GOALS["false-detection"]))
    assert false.patch.shape == (3, *SIZE)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_that_gives_no_numbers_is_refused(
    kind: str, goal: str, pictures: list[BoxSample]
) -> None:
    broken = bare(kind)
    with torch.no_grad():
        broken.network.backbone.norm.bias[0] = torch.nan
    with pytest.raises(WeightsError, match=r"not finite on \d\.png"):
        craft(broken, pictures, replace(SETTINGS, **GOALS[goal]))


def test_samples_and_goal_must_be_of_one_kind(pictures: list[BoxSample]) -> None:
    with pytest.raises(DatasetError, match="none with a label"):
        craft(bare("ssd"), pictures, replace(SETTINGS, goal=None))
    pixels = Sample(Path("0.png"), pictures[0].image, np.zeros(SIZE, np.uint8))
    with pytest.raises(DatasetError, match="none with a box"):
        craft(bare("ssd"), [pixels], SETTINGS)
    with pytest.raises(UsageError, match="needs the network's calibration"):
        craft(bare("ssd"), pictures, replace(SETTINGS, beta=0.5))
    with pytest.raises(PatchError, match="does not fit"):
        craft(bare("ssd"), pictures, replace(SETTINGS, size=(SIZE[0] + 1, 4)))

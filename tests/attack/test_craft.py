from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.attack.conftest import DEFENSE, SIZE, Network
from tests.small import random_calibration
from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.craft import craft, random_patch
from zmask_export.attack.losses import pixel_losses, smoothness
from zmask_export.attack.overactivation import OverActivation
from zmask_export.attack.placement import grid_targets, paste, patch_masks, random_placement
from zmask_export.attack.printability import log_non_printability
from zmask_export.attack.scene import Scene
from zmask_export.attack.segmentation import PixelAttack
from zmask_export.attack.settings import CraftSettings
from zmask_export.attack.transforms import Appearance
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.defense.zmask import ZMask
from zmask_export.errors import (
    CalibrationError,
    DatasetError,
    PatchError,
    UsageError,
    WeightsError,
)
from zmask_export.models.bare import BareNetwork
from zmask_export.models.weights import fingerprint
from zmask_export.spec import PREPROCESS, Policy

SETTINGS = CraftSettings(size=(14, 16), epochs=6, batch=2)
LONG = replace(SETTINGS, epochs=20, smoothness=0.0)


def _patched(samples: list[Sample], patch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every image four times with the patch somewhere, its labels, and where the patch is."""
    rng = np.random.default_rng(99)
    samples = samples * 4
    image = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).float() / 255
    places = [random_placement(rng, SIZE, (patch.shape[1], patch.shape[2])) for _ in samples]
    labels = torch.from_numpy(np.stack([s.labels for s in samples])).long()
    return paste(image, [patch] * len(samples), places), labels, patch_masks(places, SIZE)


def _attack(bare: BareNetwork, samples: list[Sample], patch: Tensor) -> tuple[float, float]:
    """Cross-entropy, and share of pixels still right, outside a patch at fixed places."""
    image, labels, masks = _patched(samples, patch)
    counted = ~masks & (labels != IGNORE)
    with torch.inference_mode():
        logits = bare.predict(image)["logits"]
    ce = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")[counted]
    return float(ce.mean()), float((logits.argmax(1) == labels)[counted].float().mean())


def test_crafting_misleads_the_network(bare: BareNetwork, samples: list[Sample]) -> None:
    told: list[tuple[int, float]] = []
    before = fingerprint(bare.network)
    crafted = craft(bare, samples, LONG, on_epoch=lambda n, value: told.append((n, value)))
    patch = crafted.patch
    assert patch.shape == (3, 14, 16)
    assert patch.min() >= 0
    assert patch.max() <= 1
    assert not patch.requires_grad
    assert crafted.evasion is None
    assert [n for n, _ in told] == list(range(1, 21))
    assert told[-1][1] == crafted.loss
    ce, right = _attack(bare, samples, patch)
    random_ce, random_right = _attack(bare, samples, random_patch(LONG.size, LONG.seed))
    assert ce > 1.4 * random_ce
    assert right < random_right - 0.15
    assert fingerprint(bare.network) == before
    assert all(parameter.requires_grad for parameter in bare.parameters())


def test_the_paper_s_combination_misleads_it_too(bare: BareNetwork, samples: list[Sample]) -> None:
    paper, plain = (
        craft(bare, samples, replace(LONG, combine=how)).patch for how in ("paper", "sum")
    )
    assert not torch.equal(paper, plain)
    random_right = _attack(bare, samples, random_patch(LONG.size, LONG.seed))[1]
    assert _attack(bare, samples, paper)[1] < random_right - 0.15


def _over_activation(
    bare: BareNetwork, calibration: Calibration, samples: list[Sample], patch: Tensor
) -> float:
    image, labels, masks = _patched(samples, patch)
    with torch.inference_mode():
        outputs, features = bare(image)
        attack = PixelAttack(pixel_losses(outputs["logits"], labels, ~masks))
        return float(OverActivation(calibration)(Scene(attack, features, masks)))


def test_beta_trades_the_attack_for_calm(
    bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    made = [
        craft(bare, samples, replace(LONG, beta=beta), calibration=calibration)
        for beta in (0.0, 0.5, 1.0)
    ]
    calm, middle, loud = (_over_activation(bare, calibration, samples, m.patch) for m in made)
    assert max(calm, middle) < 0.5 * loud
    assert made[0].evasion == pytest.approx(calm, rel=0.3)
    weak, between, strong = (_attack(bare, samples, m.patch)[0] for m in made)
    assert weak < between < strong


def _evaded(
    bare: BareNetwork, calibration: Calibration, samples: list[Sample], patch: Tensor
) -> tuple[float, float]:
    """BCE of the soft mask, and mean score, by the literal reference."""
    image, _, masks = _patched(samples, patch)
    with torch.inference_mode():
        seen = ZMask(bare, calibration, Policy.DETECT, "literal")(image)
    target = grid_targets(masks, calibration.header.defense.grid)
    bce = F.binary_cross_entropy(seen["soft_mask"], target)
    return float(bce), float(seen["score"].mean())


def test_defense_aware_attacks_evade_the_defense(
    bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    def made(**changes: object) -> Tensor:
        return craft(
            bare, samples, replace(LONG, epochs=12, **changes), calibration=calibration
        ).patch  # type: ignore[arg-type]

    plain_bce, plain_score = _evaded(bare, calibration, samples, made())
    masked = made(aware="mask", alpha=0.0)
    flagged = made(aware="flag", alpha=0.0)
    assert _evaded(bare, calibration, samples, masked)[0] > plain_bce + 0.01
    assert _evaded(bare, calibration, samples, flagged)[1] < 0.8 * plain_score
    both = _attack(bare, samples, made(aware="flag", alpha=0.5))[0]
    assert both > _attack(bare, samples, flagged)[0]


@pytest.mark.parametrize("changes", [{"beta": 1.0}, {"aware": "mask"}, {"aware": "flag"}])
def test_the_end_of_every_series_is_the_plain_attack(
    bare: BareNetwork,
    samples: list[Sample],
    calibration: Calibration,
    changes: dict[str, object],
) -> None:
    plain = craft(bare, samples, SETTINGS)
    end = craft(bare, samples, replace(SETTINGS, **changes), calibration=calibration)  # type: ignore[arg-type]
    assert torch.equal(end.patch, plain.patch)
    assert (end.loss, end.evasion) == (plain.loss, None)


def test_a_look_at_fewer_images_is_another_run(
    bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    settings = replace(SETTINGS, epochs=1, aware="flag", alpha=0.2)
    all_of_them, one, two = (
        craft(bare, samples, replace(settings, aware_images=n), calibration=calibration).patch
        for n in (None, 1, 2)
    )
    assert torch.equal(all_of_them, two)  # the batch is 2
    assert not torch.equal(all_of_them, one)


def test_smoothness_makes_the_patch_smoother(bare: BareNetwork, samples: list[Sample]) -> None:
    rough, smooth = (
        craft(bare, samples, replace(SETTINGS, smoothness=weight)).patch for weight in (0.0, 5.0)
    )
    assert smoothness(smooth) < 0.7 * smoothness(rough)


def test_printability_brings_the_colours_to_the_palette(
    bare: BareNetwork, samples: list[Sample]
) -> None:
    palette = torch.tensor([[0.1, 0.2, 0.3], [0.8, 0.7, 0.2], [0.4, 0.5, 0.6]])
    settings = replace(SETTINGS, epochs=12, smoothness=0.0)
    free = craft(bare, samples, settings).patch
    printable = craft(bare, samples, replace(settings, printability=3.0), palette=palette).patch
    score, before = (log_non_printability(p, palette) for p in (printable, free))
    assert score < before - 0.5


def test_a_patch_is_that_of_its_seed(bare: BareNetwork, samples: list[Sample]) -> None:
    settings = replace(SETTINGS, epochs=2)
    first, again = (craft(bare, samples, settings) for _ in range(2))
    other = craft(bare, samples, replace(settings, seed=1))
    assert torch.equal(first.patch, again.patch)
    assert first.loss == again.loss
    assert not torch.equal(first.patch, other.patch)


def test_crafting_goes_on_from_a_patch(bare: BareNetwork, samples: list[Sample]) -> None:
    start = craft(bare, samples, LONG).patch
    kept = start.clone()
    calm = replace(SETTINGS, epochs=1, lr=0.01)
    near = craft(bare, samples, calm, start=start).patch
    assert torch.equal(start, kept)
    assert 0 < float((near - start).abs().max()) < 0.05
    with pytest.raises(PatchError, match="16 x 14"):
        craft(bare, samples, SETTINGS, start=start[:, 1:])


def test_balancing_the_classes_changes_the_attack(bare: BareNetwork, samples: list[Sample]) -> None:
    settings = replace(SETTINGS, epochs=2)
    balanced = replace(settings, balanced=True)
    first, again = (craft(bare, samples, balanced).patch for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, craft(bare, samples, settings).patch)


def test_a_tapped_convolution_is_read_before_its_batch_norm() -> None:
    """Folding would give the tap its batch norm's output, whose statistics these are not."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
    stem[1].running_mean += 3
    network = nn.Sequential(stem, nn.ReLU(), nn.Conv2d(8, 4, 1))
    bare = BareNetwork(network, PREPROCESS["unit"], {"stem": "0.0"})
    defense = DEFENSE.model_copy(update={"shallow": ("stem",), "deep": ("stem",)})
    calibration = random_calibration(bare, defense, size=SIZE)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    sample = Sample(Path("0.png"), image, np.zeros(SIZE, np.uint8))
    still = Appearance(scale=(1, 1), brightness=0, contrast=0, noise=0)
    settings = CraftSettings(size=(12, 12), epochs=1, batch=1, beta=0.0, appearance=still)
    evasion = craft(bare, [sample], settings, calibration=calibration).evasion
    rng = np.random.default_rng((0, 0))
    rng.permutation(1)
    place = random_placement(rng, SIZE, (12, 12))
    patched = paste(
        torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0, [random_patch((12, 12), 0)], [place]
    )
    with torch.inference_mode():
        outputs, features = bare(patched)
        labels, masks = torch.zeros(1, *SIZE, dtype=torch.long), patch_masks([place], SIZE)
        attack = PixelAttack(pixel_losses(outputs["logits"], labels, ~masks))
        scene = Scene(attack, features, masks)
        assert evasion == pytest.approx(float(OverActivation(calibration)(scene)), rel=0.02)


def test_crafting_needs_images_that_the_patch_fits(
    bare: BareNetwork, samples: list[Sample]
) -> None:
    with pytest.raises(DatasetError, match="no image"):
        craft(bare, [], SETTINGS)
    bald = [replace(s, labels=np.full_like(s.labels, IGNORE)) for s in samples]
    with pytest.raises(DatasetError, match="none with a label"):
        craft(bare, bald, SETTINGS)
    with pytest.raises(PatchError, match="does not fit"):
        craft(bare, samples, replace(SETTINGS, size=(SIZE[0] + 1, 4)))


def test_crafting_needs_what_its_settings_look_at(
    bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    for settings in (replace(SETTINGS, beta=0.5), replace(SETTINGS, aware="flag", alpha=0.5)):
        with pytest.raises(UsageError, match="needs the network's calibration"):
            craft(bare, samples, settings)
    unfitted = replace(calibration, fusion=None)
    with pytest.raises(CalibrationError, match="no fitted"):
        craft(bare, samples, settings, calibration=unfitted)
    assert craft(bare, samples, replace(SETTINGS, beta=0.5), calibration=unfitted).evasion
    palette = torch.rand(3, 3)
    for settings, given in ((replace(SETTINGS, printability=1.0), None), (SETTINGS, palette)):
        with pytest.raises(UsageError, match="need each other"):
            craft(bare, samples, settings, palette=given)


@pytest.mark.parametrize("combine", ["sum", "paper"])
def test_a_network_that_gives_no_numbers_is_refused(
    bare: BareNetwork, samples: list[Sample], combine: str
) -> None:
    with torch.no_grad():
        bare.network.far.bias[0] = torch.nan
    with pytest.raises(WeightsError, match=r"not finite on \d\.png"):
        craft(bare, samples, replace(SETTINGS, combine=combine))  # type: ignore[arg-type]


class _Steep(Network):
    """The same outputs, by a root whose slope is not finite."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (0 * x.mean()).sqrt()


def test_a_network_that_gives_no_gradient_is_refused(samples: list[Sample]) -> None:
    steep = BareNetwork(_Steep(), PREPROCESS["unit"], {})
    with pytest.raises(WeightsError, match=r"gradients that are not finite on \d\.png"):
        craft(steep, samples, SETTINGS)

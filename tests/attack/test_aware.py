from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.aware import DefenseEvasion, flag_evasion, mask_evasion
from zmask_export.attack.placement import grid_targets
from zmask_export.attack.scene import Scene
from zmask_export.attack.settings import Aware
from zmask_export.defense import fusion
from zmask_export.defense.zmask import Heatmaps
from zmask_export.errors import CalibrationError

BOTH: tuple[Aware, ...] = ("mask", "flag")


def test_mask_evasion_of_closed_cases() -> None:
    soft = torch.full((2, 1, 3, 4), 0.25)
    target = torch.zeros_like(soft)
    assert float(mask_evasion(soft, target)) == pytest.approx(math.log(0.75))
    target[:, :, :, :2] = 1
    half = (math.log(0.75) + math.log(0.25)) / 2
    assert float(mask_evasion(soft, target)) == pytest.approx(half)


def test_a_mask_that_errs_more_is_lower() -> None:
    target = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
    losses = [float(mask_evasion((target - wrong).abs(), target)) for wrong in (0.1, 0.5, 0.9)]
    assert losses == sorted(losses, reverse=True)


def test_flag_evasion_is_the_negative_cross_entropy_towards_a_flag() -> None:
    score, threshold = torch.tensor([0.1, 1.3, 9.0], dtype=torch.double), torch.tensor(0.7)
    expected = -F.binary_cross_entropy(torch.sigmoid(score - threshold), torch.ones(3).double())
    torch.testing.assert_close(flag_evasion(score, threshold), expected)
    at_threshold = flag_evasion(threshold.repeat(2), threshold)
    assert float(at_threshold) == pytest.approx(-math.log(2))


def test_flag_evasion_of_a_score_far_above_keeps_its_gradient() -> None:
    score = torch.tensor([60.0], requires_grad=True)
    flag_evasion(score, torch.tensor(0.0)).backward()
    assert score.grad is not None
    assert float(score.grad) == pytest.approx(math.exp(-60), rel=1e-3)


def _literal(scene: Scene, calibration: Calibration, aware: Aware) -> Tensor:
    """The same loss by Eq. 3 as written, the whole batch at once."""
    defense = calibration.header.defense
    mean, std = (
        {tap: torch.from_numpy(v) for tap, v in values.items()}
        for values in (calibration.mean, calibration.std)
    )
    maps = Heatmaps(defense, mean, std, "literal")(scene.features)
    parameters, threshold = calibration.require_fitted()
    soft = fusion.soft_mask(maps["shallow"], maps["deep"], torch.from_numpy(parameters))
    if aware == "mask":
        return -F.binary_cross_entropy(soft, grid_targets(scene.masks, defense.grid))
    d = fusion.score(maps["shallow"], maps["deep"], soft)
    return torch.sigmoid(d - threshold).log().mean()


@pytest.mark.parametrize("aware", BOTH)
def test_losses_and_gradients_are_those_of_the_reference(
    scene: Scene, calibration: Calibration, aware: Aware
) -> None:
    evasion = DefenseEvasion(calibration, aware)
    assert evasion.taps == ("near", "far")
    leaves = {tap: value.clone().requires_grad_(True) for tap, value in scene.features.items()}
    scene = replace(scene, features=leaves)
    loss, expected = evasion(scene), _literal(scene, calibration, aware)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(loss, list(leaves.values()))
    theirs = torch.autograd.grad(expected, list(leaves.values()))
    for one, other in zip(ours, theirs, strict=True):
        assert other.norm() > 0
        assert float((one - other).norm() / other.norm()) < 1e-4


@pytest.mark.parametrize("aware", BOTH)
def test_the_gradient_points_where_the_loss_falls(
    scene: Scene, calibration: Calibration, aware: Aware
) -> None:
    evasion = DefenseEvasion(calibration, aware)
    far = scene.features["far"].clone().requires_grad_(True)

    def at(value: Tensor) -> Tensor:
        return evasion(replace(scene, features=scene.features | {"far": value}))

    (gradient,) = torch.autograd.grad(at(far), far)
    step = 0.05 * gradient / gradient.norm()
    with torch.no_grad():
        slope = float(at(far + step) - at(far - step)) / 0.1
    assert slope == pytest.approx(float(gradient.norm()), rel=0.05)


@pytest.mark.parametrize("aware", BOTH)
def test_the_first_images_stand_for_the_batch(
    scene: Scene, calibration: Calibration, aware: Aware
) -> None:
    def part(picked: slice) -> Scene:
        features = {tap: value[picked] for tap, value in scene.features.items()}
        return replace(scene, features=features, masks=scene.masks[picked])

    first, second = (
        float(DefenseEvasion(calibration, aware)(part(slice(k, k + 1)))) for k in (0, 1)
    )
    whole = float(DefenseEvasion(calibration, aware)(scene))
    assert first != second
    assert whole == pytest.approx((first + second) / 2, rel=1e-5)
    assert float(DefenseEvasion(calibration, aware, 1)(scene)) == pytest.approx(first, rel=1e-6)
    assert float(DefenseEvasion(calibration, aware, 9)(scene)) == pytest.approx(whole, rel=1e-6)


def test_statistics_alone_are_no_defense(calibration: Calibration) -> None:
    for unfitted in (replace(calibration, fusion=None), calibration.with_header(threshold=None)):
        with pytest.raises(CalibrationError, match="no fitted"):
            DefenseEvasion(unfitted, "flag")

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.aware import DefenseEvasion
from zmask_export.attack.losses import pixel_losses, smoothness
from zmask_export.attack.objectives import Objective, blend, objective
from zmask_export.attack.overactivation import OverActivation
from zmask_export.attack.printability import log_non_printability
from zmask_export.attack.scene import Scene
from zmask_export.attack.settings import CraftSettings
from zmask_export.models.bare import BareNetwork

PALETTE = torch.tensor([[0.1, 0.2, 0.3], [0.8, 0.7, 0.2]])


class _Brightness:
    """A loss of its own: how bright the activations of the first layer are."""

    taps = ("near",)

    def __call__(self, scene: Scene) -> Tensor:
        return scene.features["near"].square().mean()


@pytest.fixture
def attacked(bare: BareNetwork, scene: Scene) -> tuple[Tensor, Scene]:
    """A patch, and the scene of two grey images with it in them."""
    generator = torch.Generator().manual_seed(0)
    patch = torch.rand(3, 15, 20, generator=generator).requires_grad_(True)
    image = torch.full((2, 3, *scene.masks.shape[1:]), 0.4)
    image[0, :, 5:20, 8:28] = patch
    image[1, :, 20:35, 20:40] = patch
    outputs, features = bare(image)
    return patch, replace(scene, logits=outputs["logits"], features=features)


def _n(v: Tensor) -> Tensor:
    return v / v.double().square().sum().sqrt()


def _gradients(patch: Tensor, scene: Scene) -> dict[str, Tensor]:
    """Normalised gradients of all losses, and gamma."""
    pixels = pixel_losses(scene.logits, scene.labels, ~scene.masks)
    losses = {
        "right": pixels.right,
        "wrong": pixels.wrong,
        "sum": pixels.share * pixels.right + (1 - pixels.share) * pixels.wrong,
        "smooth": smoothness(patch),
        "printable": log_non_printability(patch, PALETTE),
        "evasion": _Brightness()(scene),
    }
    found = {k: _n(torch.autograd.grad(v, patch, retain_graph=True)[0]) for k, v in losses.items()}
    return found | {"gamma": pixels.share}


@pytest.mark.parametrize("combine", ["sum", "paper"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_step_is_that_of_the_equations(
    attacked: tuple[Tensor, Scene], combine: Any, share: float
) -> None:
    patch, scene = attacked
    g = _gradients(patch, scene)
    assert 0.05 < g["gamma"] < 0.95
    adversarial = -g["sum"]
    if combine == "paper":
        adversarial = _n(-g["gamma"] * g["right"] - (1 - g["gamma"]) * g["wrong"])
    total = adversarial + 0.3 * g["smooth"] + 0.2 * g["printable"]
    expected = _n(share * total + (1 - share) * g["evasion"])
    goal = Objective(
        combine=combine,
        smoothness=0.3,
        printability=0.2,
        palette=PALETTE,
        share=share,
        evasion=_Brightness(),
    )
    step = goal.step(patch, scene)
    torch.testing.assert_close(step.gradient, expected.float(), rtol=1e-4, atol=1e-6)
    pixels = pixel_losses(scene.logits, scene.labels, ~scene.masks)
    assert step.loss == float(pixels.total.detach())
    assert step.evasion == float(_Brightness()(scene).detach())


def test_the_two_combinations_differ(attacked: tuple[Tensor, Scene]) -> None:
    first, second = (Objective(combine=c).step(*attacked).gradient for c in ("sum", "paper"))  # type: ignore[arg-type]
    assert float((first * second).sum()) < 0.999


def test_a_step_against_the_gradient_raises_the_attack_and_lowers_the_rest(
    bare: BareNetwork, attacked: tuple[Tensor, Scene]
) -> None:
    patch, scene = attacked
    assert Objective().step(patch, scene).evasion is None
    attack = Objective().step(patch, scene).gradient
    evade = Objective(share=0.0, evasion=_Brightness()).step(patch, scene).gradient
    pixels = pixel_losses(scene.logits, scene.labels, ~scene.masks)
    (raises,) = torch.autograd.grad(pixels.total, patch, retain_graph=True)
    (brightens,) = torch.autograd.grad(_Brightness()(scene), patch)
    assert float((-attack * raises).sum()) == pytest.approx(float(raises.norm()), rel=1e-4)
    assert float((-evade * brightens).sum()) == pytest.approx(-float(brightens.norm()), rel=1e-4)


def test_class_weights_reach_the_attack(attacked: tuple[Tensor, Scene]) -> None:
    plain = Objective().step(*attacked)
    weighted = Objective(class_weights=torch.tensor([4.0, 1.0, 0.0, 1.0])).step(*attacked)
    assert plain.loss != weighted.loss
    assert not torch.equal(plain.gradient, weighted.gradient)


def test_a_blend_is_a_direction() -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert blend([(3.0, first), (4.0, second)]).tolist() == pytest.approx([0.6, 0.8])
    assert blend([(1.0, first), (1.0, -first)]).tolist() == [0, 0]
    assert blend([(torch.tensor(0.2), second)]).tolist() == [0, 1]


def test_settings_choose_what_is_evaded(calibration: Calibration) -> None:
    plain = CraftSettings(size=(4, 4))
    assert objective(plain, calibration=calibration).evasion is None
    assert objective(plain).taps == ()
    over = objective(replace(plain, beta=0.7), calibration=calibration)
    assert isinstance(over.evasion, OverActivation)
    assert (over.share, over.taps) == (0.7, ("near",))
    for aware in ("mask", "flag"):
        settings = replace(plain, aware=aware, alpha=0.2, aware_images=2)  # type: ignore[arg-type]
        goal = objective(settings, calibration=calibration)
        assert isinstance(goal.evasion, DefenseEvasion)
        assert (goal.evasion.aware, goal.evasion.images) == (aware, 2)
        assert (goal.share, goal.taps) == (0.2, ("near", "far"))

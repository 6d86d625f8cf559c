from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.aware import DefenseEvasion
from zmask_export.attack.directions import blend
from zmask_export.attack.losses import PixelLosses, pixel_losses, smoothness
from zmask_export.attack.objectives import Objective, objective
from zmask_export.attack.overactivation import OverActivation
from zmask_export.attack.printability import log_non_printability
from zmask_export.attack.scene import Scene
from zmask_export.attack.segmentation import PixelAttack
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
    patch, features, *pixels = _grey(bare, scene.masks)
    return patch, replace(scene, adversarial=PixelAttack(pixel_losses(*pixels)), features=features)


def _grey(
    bare: BareNetwork, masks: Tensor
) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor, Tensor]:
    """A patch; features, logits, labels and outside of two grey images with it in them."""
    generator = torch.Generator().manual_seed(0)
    patch = torch.rand(3, 15, 20, generator=generator).requires_grad_(True)
    labels = torch.randint(0, 4, masks.shape, generator=generator)
    image = torch.full((2, 3, *masks.shape[1:]), 0.4)
    image[0, :, 5:20, 8:28] = patch
    image[1, :, 20:35, 20:40] = patch
    outputs, features = bare(image)
    return patch, features, outputs["logits"], labels, ~masks


def _pixels(scene: Scene) -> PixelLosses:
    assert isinstance(scene.adversarial, PixelAttack)
    return scene.adversarial.pixels


def _combined(scene: Scene, combine: Any) -> Scene:
    return replace(scene, adversarial=PixelAttack(_pixels(scene), combine))


def _n(v: Tensor) -> Tensor:
    return v / v.double().square().sum().sqrt()


def _gradients(patch: Tensor, scene: Scene) -> dict[str, Tensor]:
    """Normalised gradients of all losses, and gamma."""
    pixels = _pixels(scene)
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
        smoothness=0.3,
        printability=0.2,
        palette=PALETTE,
        share=share,
        evasion=_Brightness(),
    )
    step = goal.step(patch, _combined(scene, combine))
    torch.testing.assert_close(step.gradient, expected.float(), rtol=1e-4, atol=1e-6)
    assert step.loss == float(_pixels(scene).total.detach())
    assert step.evasion == float(_Brightness()(scene).detach())


def test_the_two_combinations_differ(attacked: tuple[Tensor, Scene]) -> None:
    patch, scene = attacked
    first, second = (
        Objective().step(patch, _combined(scene, c)).gradient for c in ("sum", "paper")
    )
    assert float((first * second).sum()) < 0.999


def test_a_step_against_the_gradient_raises_the_attack_and_lowers_the_rest(
    bare: BareNetwork, attacked: tuple[Tensor, Scene]
) -> None:
    patch, scene = attacked
    assert Objective().step(patch, scene).evasion is None
    attack = Objective().step(patch, scene).gradient
    evade = Objective(share=0.0, evasion=_Brightness()).step(patch, scene).gradient
    pixels = _pixels(scene)
    (raises,) = torch.autograd.grad(pixels.total, patch, retain_graph=True)
    (brightens,) = torch.autograd.grad(_Brightness()(scene), patch)
    assert float((-attack * raises).sum()) == pytest.approx(float(raises.norm()), rel=1e-4)
    assert float((-evade * brightens).sum()) == pytest.approx(-float(brightens.norm()), rel=1e-4)


def test_class_weights_reach_the_attack(bare: BareNetwork, scene: Scene) -> None:
    patch, _, *pixels = _grey(bare, scene.masks)
    weights = torch.tensor([4.0, 1.0, 0.0, 1.0])
    plain, weighted = (
        Objective().step(patch, replace(scene, adversarial=PixelAttack(losses)))
        for losses in (pixel_losses(*pixels), pixel_losses(*pixels, weights))
    )
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

"""The attack on a detector: weights, signs, directions, and which images take part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.attack.detectors import KINDS, LOSSES, SIZE, bare, picture
from zmask_export.attack.detection import BoxAttack, DetectorVictim, weigh
from zmask_export.attack.detector_losses import CLASS_LOSSES, detector_losses
from zmask_export.attack.directions import unit
from zmask_export.attack.objectives import Objective
from zmask_export.attack.placement import Placement, paste
from zmask_export.attack.scene import Scene
from zmask_export.attack.settings import Goal
from zmask_export.attack.targets import Targets
from zmask_export.data.coco import BoxSample

GOALS: dict[Goal, tuple[int, int]] = {
    "misclassify": (-1, 1),
    "untargeted": (-1, -1),
    "false-detection": (1, 1),
}
PLACES = [Placement(3, 4, 18, 20), Placement(40, 50, 18, 20), Placement(20, 30, 18, 20)]


def _victim(kind: str, samples: list[BoxSample], goal: Goal = "misclassify") -> DetectorVictim:
    target = 2 if goal == "false-detection" else None
    targets = Targets(goal, target)
    return DetectorVictim(bare(kind), samples, ("far",), targets=targets, box_weight=1.0)


def _patched(samples: list[BoxSample], patch: Tensor) -> Tensor:
    images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).float()
    return paste(images / 255, [patch] * len(samples), PLACES[: len(samples)])


def _patch() -> Tensor:
    patch = torch.rand(3, 18, 20, generator=torch.Generator().manual_seed(0))
    return patch.requires_grad_(True)


def _scene(victim: DetectorVictim, samples: list[BoxSample], patch: Tensor) -> Scene | None:
    picked = list(range(len(samples)))
    rng = np.random.default_rng(7)
    return victim.scene(picked, _patched(samples, patch), PLACES[: len(samples)], rng)


def _loss(scene: Scene) -> float:
    return float(scene.adversarial.loss.detach())


@pytest.mark.parametrize("goal", GOALS)
def test_every_loss_has_the_sign_of_its_goal(goal: Goal) -> None:
    for_class, for_boxes = GOALS[goal]
    for names in (LOSSES["ssd"], LOSSES["fasterrcnn"]):
        losses = {name: torch.tensor(2.0**k) for k, name in enumerate(sorted(names))}
        attack = weigh(losses, goal, 0.25)
        weights = {float(loss): weight for weight, loss in attack.terms}
        assert weights == {
            float(loss): for_class if name in CLASS_LOSSES else 0.25 * for_boxes
            for name, loss in losses.items()
        }
        total = sum(weight * loss for loss, weight in weights.items())
        assert float(attack.loss) == pytest.approx(total)


def test_boxes_of_no_weight_are_left_out() -> None:
    losses = {name: torch.tensor(1.0) for name in LOSSES["fasterrcnn"]}
    assert len(weigh(losses, "untargeted", 0.0).terms) == 2


def test_every_loss_is_normalised_by_itself() -> None:
    patch = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    attack = BoxAttack([(-1.0, 1000 * patch[0]), (0.5, patch[1] ** 2), (1.0, 0 * patch[2])])
    direction = attack.direction(patch)
    torch.testing.assert_close(direction, unit(torch.tensor([-1.0, 0.5, 0.0])))
    assert float(attack.loss.detach()) == -1000 + 2


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_the_losses_as_the_goal_wants(kind: str, goal: Goal) -> None:
    samples = [picture(0), picture(1)]
    victim, patch = _victim(kind, samples, goal), _patch()
    scene = _scene(victim, samples, patch)
    assert scene is not None
    step = Objective().step(patch, scene)
    assert float(step.gradient.norm()) == pytest.approx(1, rel=1e-4)
    assert isinstance(scene.adversarial, BoxAttack)
    # The losses that pull one way fall, or rise, together along the step.
    for sign in (-1, 1):
        losses = [loss for weight, loss in scene.adversarial.terms if weight == sign]
        if losses:
            total = sum(losses, start=torch.tensor(0.0))
            (slope,) = torch.autograd.grad(total, patch, retain_graph=True)
            assert sign * float((slope * -step.gradient).sum()) < 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_what_the_network_makes_of_it(kind: str) -> None:
    samples = [picture(0), picture(1)]
    patch = _patch()
    scene = _scene(_victim(kind, samples), samples, patch)
    assert scene is not None
    network = bare(kind)
    targets = [Targets("misclassify").of(s, p) for s, p in zip(samples, PLACES, strict=False)]
    seed = int(np.random.default_rng(7).integers(1 << 62))
    images = list(_patched(samples, patch))
    expected = weigh(detector_losses(network.network, images, targets, seed), "misclassify", 1)
    assert isinstance(scene.adversarial, BoxAttack)
    for (_, ours), (_, theirs) in zip(scene.adversarial.terms, expected.terms, strict=True):
        assert ours.dtype == torch.float32
        assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=0.05)
    _, features = network(_patched(samples, patch))
    assert set(scene.features) == {"far"}
    far = features["far"].detach()
    torch.testing.assert_close(
        scene.features["far"].detach().float(), far, rtol=0, atol=0.03 * float(far.abs().max())
    )
    assert scene.masks[0, 3:21, 4:24].all()
    assert scene.masks.sum() == 2 * 18 * 20


def test_channels_come_in_the_order_of_the_network() -> None:
    samples = [picture(0)]
    bgr = bare("ssd")
    bgr.preprocess = bgr.preprocess.model_copy(update={"bgr": True})
    targets = Targets("untargeted")
    victim = DetectorVictim(bgr, samples, (), targets=targets, box_weight=1.0)
    patch = _patch()
    scene = _scene(victim, samples, patch)
    turned = [replace(samples[0], image=samples[0].image[..., ::-1].copy())]
    expected = _scene(_victim("ssd", turned, "untargeted"), turned, patch.flip(0))
    assert scene is not None
    assert expected is not None
    assert _loss(scene) == _loss(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_a_target_takes_no_part(kind: str) -> None:
    full, bald = picture(0), picture(1, count=0)
    x1, y1, x2, y2 = PLACES[1].corners
    under = replace(
        picture(2),
        boxes=np.array([[x1 + 1, y1 + 1, x2 - 1, y2 - 1]], np.float32),
        labels=np.array([1]),
        crowd=np.zeros(1, np.bool_),
    )
    patch = _patch()
    for other in (bald, under):
        both = _scene(_victim(kind, [full, other]), [full, other], patch)
        alone = _scene(_victim(kind, [full]), [full], patch)
        assert both is not None
        assert alone is not None
        assert _loss(both) == _loss(alone)
        assert both.features["far"].shape[0] == both.masks.shape[0] == 1
    victim = _victim(kind, [bald, under])
    assert _scene(victim, [bald, under], patch) is None
    everywhere = _scene(_victim(kind, [bald, under], "false-detection"), [bald, under], patch)
    assert everywhere is not None
    assert everywhere.masks.shape == (2, *SIZE)

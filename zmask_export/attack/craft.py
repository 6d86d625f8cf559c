"""Crafting a universal adversarial patch (Eq. 1) with EOT."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack import checkpoint as checkpoints
from zmask_export.attack import palette as palettes
from zmask_export.attack.checkpoint import Progress
from zmask_export.attack.detection import DetectorVictim
from zmask_export.attack.objectives import Objective, Step, objective
from zmask_export.attack.placement import paste, random_placement
from zmask_export.attack.scene import Victim
from zmask_export.attack.segmentation import SegmentationVictim
from zmask_export.attack.settings import CraftSettings
from zmask_export.attack.targets import Targets
from zmask_export.attack.transforms import vary
from zmask_export.data.coco import BoxSample
from zmask_export.data.images import to_float
from zmask_export.data.segmentation import Sample
from zmask_export.errors import PatchError, WeightsError
from zmask_export.models.bare import BareNetwork
from zmask_export.models.detection.network import DetectorNetwork
from zmask_export.models.weights import fingerprint
from zmask_export.spec import Size


@dataclass(frozen=True)
class Crafted:
    """A patch and where its optimisation ended.

    Attributes:
        patch: float32 (3, h, w) in [0, 1].
        loss: mean loss of the last epoch: of a segmentation network the loss that the attack raises, of a
            detector L_adv-eff of Eq. 8 or 9, which it lowers.
        evasion: mean evasion loss of the last epoch (L_OZ, or what Adv-Mask or Adv-Flag adds), which
            it lowers; None for a plain attack.
    """

    patch: Tensor
    loss: float
    evasion: float | None


def random_patch(size: Size, seed: int) -> Tensor:
    """Uniform noise, float32 (3, h, w) in [0, 1): the random patch, and where crafting starts."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.random((3, *size), dtype=np.float32))


def craft(
    bare: BareNetwork,
    samples: Sequence[Sample | BoxSample],
    settings: CraftSettings,
    *,
    calibration: Calibration | None = None,
    palette: Tensor | None = None,
    start: Tensor | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Crafted:
    """Optimise one patch against many images.

    The network runs with its batch norms folded and in bfloat16, which only crafting does; losses, the
    defense and the patch are float32.

    Args:
        bare: the network, with the taps of the calibration; it is not changed.
        samples: images of one size with labels, or with boxes for a detector.
        settings: what to optimise for; a detector has a ``goal``.
        calibration: for beta < 1 its statistics, for alpha < 1 the fitted defense.
        palette: printable colours (k, 3) in [0, 1], for a weight of printability.
        start: patch (3, h, w) in [0, 1] to begin with; None begins with noise.
        checkpoint: where progress is kept after every epoch. A run goes on from there; progress of
            another network, other images, other settings or another start is ignored.
        on_epoch: told the number of finished epochs and the mean loss.

    Raises:
        DatasetError: no image, or no labelled pixel, or no box.
        PatchError: the patch is larger than the images, or covers all their boxes, or the start has
            another size.
        UsageError, CalibrationError: the settings ask for what is not given, see ``objective``.
        WeightsError: the network's outputs or gradients are not finite.
        OutputError: progress cannot be written.
    """
    aims = objective(settings, calibration=calibration, palette=palette)
    victim = _victim(bare, samples, settings, aims.taps)
    patch = _start(settings, start)
    identity = _identity(bare, samples, settings, calibration, palette, patch)
    patch.requires_grad_(True)
    optimizer = torch.optim.Adam([patch], lr=settings.lr)
    progress = checkpoints.resume(checkpoint, identity, patch, optimizer)
    for epoch in range(progress.epoch, settings.epochs):
        optimizer.param_groups[0]["lr"] = settings.learning_rate(epoch)
        rng = np.random.default_rng((settings.seed, epoch))
        order = rng.permutation(len(samples))
        steps = []
        for at in range(0, len(order), settings.batch):
            picked = order[at : at + settings.batch]
            step = _step(victim, samples, picked, patch, aims, settings, rng)
            if step is None:
                continue
            steps.append(step)
            patch.grad = step.gradient
            optimizer.step()
            with torch.no_grad():
                patch.clamp_(0, 1)
        if not steps:
            continue
        progress = Progress(
            epoch + 1,
            float(np.mean([step.loss for step in steps])),
            _mean([step.evasion for step in steps if step.evasion is not None]),
        )
        if checkpoint is not None:
            checkpoints.save(checkpoint, identity, progress, patch, optimizer)
        if on_epoch is not None:
            on_epoch(progress.epoch, progress.loss)
    if settings.epochs > 0 and patch not in optimizer.state:
        raise PatchError(
            "Wherever the patch was put, it covered the boxes of every image.",
            fix="Choose a smaller patch, or more images.",
        )
    return Crafted(patch.detach().clone(), progress.loss, progress.evasion)


def _start(settings: CraftSettings, start: Tensor | None) -> Tensor:
    if start is None:
        return random_patch(settings.size, settings.seed)
    if start.shape != (3, *settings.size):
        h, w = start.shape[1:]
        raise PatchError(
            f"The patch to start from has {w} x {h} pixels, not "
            f"{settings.size[1]} x {settings.size[0]}.",
            fix="Give a patch of the size that is crafted, or pass --size.",
        )
    return start.clone()


def _victim(
    bare: BareNetwork,
    samples: Sequence[Sample | BoxSample],
    settings: CraftSettings,
    taps: Sequence[str],
) -> Victim:
    if not isinstance(bare, DetectorNetwork) or settings.goal is None:
        return SegmentationVictim(
            bare,
            [sample for sample in samples if isinstance(sample, Sample)],
            taps,
            combine=settings.combine,
            balanced=settings.balanced,
        )
    return DetectorVictim(
        bare,
        [sample for sample in samples if isinstance(sample, BoxSample)],
        taps,
        targets=Targets(settings.goal, settings.target_class),
        box_weight=settings.box_weight,
    )


def _step(
    victim: Victim,
    samples: Sequence[Sample | BoxSample],
    picked: NDArray[np.int64],
    patch: Tensor,
    aims: Objective,
    settings: CraftSettings,
    rng: np.random.Generator,
) -> Step | None:
    """One step's direction; None where no image counts."""
    image = torch.from_numpy(to_float([samples[i].image for i in picked]))
    size = (image.shape[2], image.shape[3])
    places = [random_placement(rng, size, settings.size, settings.appearance.scale) for _ in picked]
    patched = paste(image, [vary(patch, settings.appearance, rng) for _ in picked], places)
    scene = victim.scene(picked.tolist(), patched, places, rng)
    if scene is None:
        return None
    step = aims.step(patch, scene)
    if not (np.isfinite(step.loss) and torch.isfinite(step.gradient).all()):
        raise WeightsError(
            "The network gives values or gradients that are not finite on "
            f"{samples[picked[0]].path.name}.",
            fix="Check the weights and --preprocess.",
        )
    return step


def _identity(
    bare: BareNetwork,
    samples: Sequence[Sample | BoxSample],
    settings: CraftSettings,
    calibration: Calibration | None,
    palette: Tensor | None,
    start: Tensor,
) -> str:
    parts = (
        fingerprint(bare.network),
        bare.preprocess,
        bare.paths,
        settings,
        checkpoints.samples_sha256(samples),
        calibration.sha256() if calibration else None,
        palettes.sha256(palette) if palette is not None else None,
        hashlib.sha256(start.numpy().tobytes()).hexdigest(),
    )
    return " ".join(map(str, parts))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None

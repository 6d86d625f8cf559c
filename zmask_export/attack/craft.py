"""Crafting a universal adversarial patch (Eq. 1) with EOT."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack import checkpoint as checkpoints
from zmask_export.attack import palette as palettes
from zmask_export.attack.checkpoint import Progress
from zmask_export.attack.losses import class_balance
from zmask_export.attack.objectives import Objective, Step, objective
from zmask_export.attack.placement import paste, patch_masks, random_placement
from zmask_export.attack.scene import Scene
from zmask_export.attack.settings import CraftSettings
from zmask_export.attack.transforms import vary
from zmask_export.data.images import to_float
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.errors import DatasetError, PatchError, WeightsError
from zmask_export.models.bare import BareNetwork
from zmask_export.models.folding import fold_batch_norms
from zmask_export.models.taps import resolve
from zmask_export.models.weights import fingerprint
from zmask_export.spec import Size


@dataclass(frozen=True)
class Crafted:
    """A patch and where its optimisation ended.

    Attributes:
        patch: float32 (3, h, w) in [0, 1].
        loss: mean segmentation loss of the last epoch, which the attack raises.
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
    samples: Sequence[Sample],
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
        samples: images of one size with labels.
        settings: what to optimise for.
        calibration: for beta < 1 its statistics, for alpha < 1 the fitted defense.
        palette: printable colours (k, 3) in [0, 1], for a weight of printability.
        start: patch (3, h, w) in [0, 1] to begin with; None begins with noise.
        checkpoint: where progress is kept after every epoch. A run goes on from there; progress of
            another network, other images, other settings or another start is ignored.
        on_epoch: told the number of finished epochs and the mean loss.

    Raises:
        DatasetError: no image, or no labelled pixel.
        PatchError: the patch is larger than the images, or the start has another size.
        UsageError, CalibrationError: the settings ask for what is not given, see ``objective``.
        WeightsError: the network's outputs or gradients are not finite.
        OutputError: progress cannot be written.
    """
    if not any((sample.labels != IGNORE).any() for sample in samples):
        raise DatasetError(
            "There is no image to craft on, or none with a label.",
            fix="Give a folder with labelled images.",
        )
    goal = objective(
        settings,
        calibration=calibration,
        palette=palette,
        class_weights=_class_weights(bare, samples) if settings.balanced else None,
    )
    patch = _start(settings, start)
    identity = _identity(bare, samples, settings, calibration, palette, patch)
    bare = _fast(bare, goal.taps)
    patch.requires_grad_(True)
    optimizer = torch.optim.Adam([patch], lr=settings.lr)
    progress = checkpoints.resume(checkpoint, identity, patch, optimizer)
    for epoch in range(progress.epoch, settings.epochs):
        optimizer.param_groups[0]["lr"] = settings.learning_rate(epoch)
        rng = np.random.default_rng((settings.seed, epoch))
        order = rng.permutation(len(samples))
        steps = []
        for at in range(0, len(order), settings.batch):
            group = [samples[i] for i in order[at : at + settings.batch]]
            steps.append(_step(bare, group, patch, goal, settings, rng))
            patch.grad = steps[-1].gradient
            optimizer.step()
            with torch.no_grad():
                patch.clamp_(0, 1)
        progress = Progress(
            epoch + 1,
            float(np.mean([step.loss for step in steps])),
            _mean([step.evasion for step in steps if step.evasion is not None]),
        )
        if checkpoint is not None:
            checkpoints.save(checkpoint, identity, progress, patch, optimizer)
        if on_epoch is not None:
            on_epoch(progress.epoch, progress.loss)
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


def _step(
    bare: BareNetwork,
    group: Sequence[Sample],
    patch: Tensor,
    goal: Objective,
    settings: CraftSettings,
    rng: np.random.Generator,
) -> Step:
    image = torch.from_numpy(to_float([sample.image for sample in group]))
    size = (image.shape[2], image.shape[3])
    places = [random_placement(rng, size, settings.size, settings.appearance.scale) for _ in group]
    patched = paste(image, [vary(patch, settings.appearance, rng) for _ in group], places)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, features = bare(patched.contiguous(memory_format=torch.channels_last))
    labels = torch.from_numpy(np.stack([sample.labels for sample in group])).long()
    scene = Scene(outputs["logits"], features, labels, patch_masks(places, size))
    step = goal.step(patch, scene)
    if not (np.isfinite(step.loss) and torch.isfinite(step.gradient).all()):
        raise WeightsError(
            f"The network gives values or gradients that are not finite on {group[0].path.name}.",
            fix="Check the weights and --preprocess.",
        )
    return step


def _fast(bare: BareNetwork, taps: Sequence[str]) -> BareNetwork:
    """The same network, faster to differentiate, with some of its taps."""
    paths = {tap: bare.paths[tap] for tap in taps}
    # Folded, a convolution gives what its batch norm gave: not what its statistics were taken of.
    if any(isinstance(module, nn.Conv2d) for module in resolve(bare.network, paths).values()):
        network = copy.deepcopy(bare.network).requires_grad_(False)
    else:
        network = fold_batch_norms(bare.network)
    network = network.to(memory_format=torch.channels_last)
    return BareNetwork(network, bare.preprocess, paths, bare.outputs)


def _class_weights(bare: BareNetwork, samples: Sequence[Sample]) -> Tensor:
    with torch.inference_mode():
        logits = bare.predict(torch.from_numpy(to_float([samples[0].image])))["logits"]
    return class_balance((sample.labels for sample in samples), int(logits.shape[1]))


def _identity(
    bare: BareNetwork,
    samples: Sequence[Sample],
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

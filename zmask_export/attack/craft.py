"""Crafting a universal adversarial patch (Eq. 1) with EOT and smoothness."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from zmask_export.artifacts.files import write_bytes
from zmask_export.attack.losses import class_balance, segmentation_loss, smoothness, unit
from zmask_export.attack.placement import paste, patch_masks, random_placement
from zmask_export.attack.transforms import Appearance, vary
from zmask_export.data.images import to_float
from zmask_export.data.segmentation import Sample
from zmask_export.errors import DatasetError
from zmask_export.models.folding import fold_batch_norms
from zmask_export.models.registry import normalise
from zmask_export.spec import Preprocess, Size

_KEY = "zmask-export-craft"


@dataclass(frozen=True)
class CraftSettings:
    """Settings of one run.

    Attributes:
        size: (h, w) of the patch in pixels.
        epochs: passes over the images.
        batch: images a step.
        lr: Adam's step, in units of the colour range; follows a cosine to a tenth.
        smoothness: w_S, the weight of the smoothness gradient.
        balanced: weight every class the same, as mIoU does, instead of every pixel.
        appearance: EOT ranges.
        seed: of everything random.
    """

    size: Size
    epochs: int = 60
    batch: int = 5
    lr: float = 0.1
    smoothness: float = 0.1
    balanced: bool = False
    appearance: Appearance = field(default_factory=Appearance)
    seed: int = 0

    def learning_rate(self, epoch: int) -> float:
        """Adam's step in an epoch."""
        return self.lr * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * epoch / max(self.epochs, 1))))


def craft(
    network: nn.Module,
    preprocess: Preprocess,
    samples: Sequence[Sample],
    settings: CraftSettings,
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[Tensor, float]:
    """Optimise one patch against many images.

    The gradient of the attack and that of the smoothness are normalised before they are added
    (B.2), so the weights mean what they say.

    Args:
        network: the bare network; its parameters are not changed.
        preprocess: its normalisation.
        samples: images of one size with labels.
        settings: see :class:`CraftSettings`.
        checkpoint: where progress is kept after every epoch; a run goes on from there.
        identity: what the checkpoint must belong to; another one is ignored.
        on_epoch: told the number of finished epochs and the mean loss.

    Returns:
        The patch, float32 (3, h, w) in [0, 1], and the attack loss of the last epoch.

    Raises:
        DatasetError: no image.
        PatchError: the patch is larger than the images.
    """
    if not samples:
        raise DatasetError("There is no image to craft on.", fix="Give a folder with images.")
    network = fold_batch_norms(network).to(memory_format=torch.channels_last)
    rng = np.random.default_rng(settings.seed)
    patch = torch.from_numpy(rng.random((3, *settings.size), dtype=np.float32))
    patch.requires_grad_(True)
    optimizer = torch.optim.Adam([patch], lr=settings.lr)
    identity = f"{identity} {settings}"
    weights = None
    if settings.balanced:
        weights = class_balance(
            (s.labels for s in samples), _classes(network, preprocess, samples[0])
        )
    first, loss = _resume(checkpoint, identity, patch, optimizer)
    for epoch in range(first, settings.epochs):
        optimizer.param_groups[0]["lr"] = settings.learning_rate(epoch)
        rng = np.random.default_rng((settings.seed, epoch))
        order = rng.permutation(len(samples))
        losses = []
        for start in range(0, len(order), settings.batch):
            group = [samples[i] for i in order[start : start + settings.batch]]
            losses.append(
                _step(network, preprocess, group, patch, optimizer, settings, rng, weights)
            )
        loss = float(np.mean(losses))
        if checkpoint is not None:
            write_bytes(checkpoint, _dump(identity, epoch + 1, loss, patch, optimizer))
        if on_epoch is not None:
            on_epoch(epoch + 1, loss)
    return patch.detach().clone(), loss


def _classes(network: nn.Module, preprocess: Preprocess, sample: Sample) -> int:
    with torch.inference_mode():
        return int(network(normalise(_images([sample]), preprocess)).shape[1])


def _images(group: Sequence[Sample]) -> Tensor:
    return torch.from_numpy(to_float([sample.image for sample in group]))


def _step(
    network: nn.Module,
    preprocess: Preprocess,
    group: Sequence[Sample],
    patch: Tensor,
    optimizer: torch.optim.Adam,
    settings: CraftSettings,
    rng: np.random.Generator,
    weights: Tensor | None,
) -> float:
    image = _images(group)
    labels = torch.from_numpy(np.stack([s.labels for s in group])).long()
    size = (image.shape[2], image.shape[3])
    places = [random_placement(rng, size, settings.size, settings.appearance.scale) for _ in group]
    patched = paste(image, [vary(patch, settings.appearance, rng) for _ in group], places)
    x = normalise(patched, preprocess).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(x)
    loss = segmentation_loss(logits, labels, ~patch_masks(places, size), weights)
    (attack,) = torch.autograd.grad(-loss, patch)
    (smooth,) = torch.autograd.grad(smoothness(patch), patch)
    patch.grad = unit(unit(attack) + settings.smoothness * unit(smooth))
    optimizer.step()
    with torch.no_grad():
        patch.clamp_(0, 1)
    return float(loss.detach())


def _dump(
    identity: str, epoch: int, loss: float, patch: Tensor, optimizer: torch.optim.Adam
) -> bytes:
    state = optimizer.state[patch]
    tensors = {
        "patch": patch.detach(),
        "exp_avg": state["exp_avg"],
        "exp_avg_sq": state["exp_avg_sq"],
        "step": state["step"],
    }
    record = json.dumps({"identity": identity, "epoch": epoch, "loss": loss})
    return save_tensors(tensors, metadata={_KEY: record})


def _resume(
    checkpoint: Path | None, identity: str, patch: Tensor, optimizer: torch.optim.Adam
) -> tuple[int, float]:
    if checkpoint is None or not checkpoint.exists():
        return 0, float("nan")
    try:
        with safe_open(checkpoint, framework="pt") as file:
            record = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if record["identity"] != identity:
            return 0, float("nan")
        epoch, loss = int(record["epoch"]), float(record["loss"])
        state = {key: tensors[key] for key in ("step", "exp_avg", "exp_avg_sq")}
        with torch.no_grad():
            patch.copy_(tensors["patch"])
        optimizer.state[patch] = state
        return epoch, loss
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError):
        # A checkpoint that cannot be read only costs the time it would have saved.
        return 0, float("nan")

"""Train a demo segmentation network on a folder of images and label maps.

    python tools/train_demo.py --data DIR --model icnet --out calib/icnet/weights.safetensors

``DIR`` is in CamVid or Cityscapes layout. The run checkpoints after every epoch beside ``--out`` and
goes on where it stopped when it is started again. The weights that are written are the exponential
moving average, in float16.

Recipe: AdamW with weight decay 0.05 (none on norms and biases), one-cycle learning rate, bfloat16
autocast, channels-last, auxiliary losses 0.4 (for ICNet its cascade label guidance), inverse-log class
weights, random scale, crop, flip and colour.

BiSeNet's thin context path hardly learns from scratch at full size: it learns at half the size first, four
times faster, and goes on from there (``--size``, ``--crop``, then ``--init``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from augmentation import random_view, recolour
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export.data.segmentation import IGNORE, SegmentationFolder
from zmask_export.evaluate.metrics import ConfusionMatrix
from zmask_export.models import registry
from zmask_export.models.registry import normalise
from zmask_export.models.weights import load_network

AUX_WEIGHT = 0.4


def load_split(data: Path, split: str, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The whole split in memory: images uint8 (N, 3, H, W), labels uint8 (N, H, W)."""
    folder = SegmentationFolder(data, split, size=size)
    samples = list(folder)
    images = np.stack([s.image for s in samples]).transpose(0, 3, 1, 2)
    labels = np.stack([s.labels for s in samples])
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """1 / log(1.02 + share), the weighting of ENet, scaled to a mean of 1."""
    counts = torch.bincount(labels[labels != IGNORE].long().flatten(), minlength=classes)
    weights = 1 / torch.log(1.02 + counts / counts.sum())
    return weights / weights.mean()


def augment(
    image: Tensor, labels: Tensor, crop: tuple[int, int], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random scale, crop, flip, brightness, contrast, saturation. Image comes back in [0, 1]."""
    x, y, _ = random_view(image, labels, crop, rng, scales=(0.75, 2.0), padding="reflection")
    return recolour(x, rng), y


def batches(
    images: Tensor, labels: Tensor, size: int, crop: tuple[int, int], seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented batches, in an order that depends on the seed alone."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))[: len(images) // size * size].reshape(-1, size)
    for indices in order:
        pairs = [augment(images[i], labels[i], crop, rng) for i in indices]
        yield torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])


def loss_of(
    outputs: Tensor | tuple[Tensor, ...], labels: Tensor, weights: Tensor, align_corners: bool
) -> Tensor:
    """Weighted cross-entropy: the main output at half resolution plus the auxiliary ones."""
    maps = outputs if isinstance(outputs, tuple) else (outputs,)
    total = torch.zeros(())
    for i, logits in enumerate(maps):
        if i == 0:
            half = (labels.shape[1] // 2, labels.shape[2] // 2)
            logits = F.interpolate(
                logits.float(), size=half, mode="bilinear", align_corners=align_corners
            )
            target = labels[:, ::2, ::2]
        else:
            # Auxiliary heads learn from the nearest label: a quarter of the work, same guidance.
            target = F.interpolate(labels[:, None].float(), size=logits.shape[2:])[:, 0].long()
        part = F.cross_entropy(logits.float(), target, weights, ignore_index=IGNORE)
        total = total + part * (1.0 if i == 0 else AUX_WEIGHT)
    return total


@torch.no_grad()
def validate(
    network: nn.Module, spec: registry.ModelEntry, images: Tensor, labels: Tensor
) -> float:
    """Mean IoU over a split held in memory."""
    network.eval()
    matrix = ConfusionMatrix(spec.classes)
    for i in range(0, len(images), 4):
        x = normalise(images[i : i + 4].float() / 255, spec.preprocess)
        prediction = network(x.contiguous(memory_format=torch.channels_last)).argmax(1)
        matrix.update(prediction.numpy(), labels[i : i + 4].numpy())
    return matrix.mean_iou()


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data set folder.")
@click.option("--model", default="icnet", help="Network to train.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Weights to write.")
@click.option("--epochs", default=90)
@click.option("--batch", default=8)
@click.option("--lr", default=2.5e-3, help="Peak learning rate.")
@click.option("--size", nargs=2, default=(360, 480), help="Image height and width.")
@click.option("--crop", nargs=2, default=(320, 432), help="Crop height and width.")
@click.option("--validate-every", default=5, help="Epochs between validations.")
@click.option("--init", type=click.Path(path_type=Path), help="Weights to start from.")
@click.option("--average", default=0.998, help="Decay of the moving average, per step.")
@click.option("--he-init", is_flag=True, help="Start convolutions as He et al. (2015) do.")
@click.option("--seed", default=0)
def main(
    data: Path,
    model: str,
    out: Path,
    epochs: int,
    batch: int,
    lr: float,
    size: tuple[int, int],
    crop: tuple[int, int],
    validate_every: int,
    init: Path | None,
    average: float,
    he_init: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    entry = registry.get(model)
    network = entry.build_for_training()
    for module in network.modules() if he_init else ():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if init:
        network.load_state_dict(load_network(entry, init)[0].state_dict(), strict=False)
    network = network.to(memory_format=torch.channels_last)
    smooth = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(average), use_buffers=True
    )
    images, labels = load_split(data, "train", size)
    val_images, val_labels = load_split(data, "val", size)
    weights = class_weights(labels, entry.classes)
    decay = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=lr,
        fused=True,
    )
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    checkpoint = out.with_suffix(".checkpoint.pt")
    identity = [model, len(images), epochs, batch, lr, *size, *crop, str(init), average]
    identity += [he_init, seed]
    first, best, score = 0, 0.0, 0.0
    state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else {}
    if state and state["identity"] != identity:
        raise click.UsageError(f"{checkpoint} is of a run with other settings: move it away.")
    if state:
        network.load_state_dict(state["network"])
        smooth.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first, best, score = state["epoch"], state["best"], state["score"]
    started = time.monotonic()
    with Progress() as progress:
        task = progress.add_task("training", total=epochs, completed=first)
        for epoch in range(first, epochs):
            network.train()
            running = 0.0
            for x, y in batches(images, labels, batch, crop, seed * 100_003 + epoch):
                x = normalise(x, entry.preprocess).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    outputs = network(x)
                loss = loss_of(outputs, y.long(), weights, bool(network.ALIGN_CORNERS))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                smooth.update_parameters(network)
                running += loss.item()
            line = f"epoch {epoch + 1}: loss {running / (len(images) // batch):.3f}"
            if (epoch + 1) % validate_every == 0 or epoch + 1 == epochs:
                score = validate(smooth.module, entry, val_images, val_labels)
                best = max(best, score)
                line += f", val mIoU {score:.4f} (best {best:.4f})"
            progress.console.print(f"{line}, {time.monotonic() - started:.0f} s", highlight=False)
            progress.advance(task)
            state = {
                "identity": identity,
                "score": score,
                "network": network.state_dict(),
                "average": smooth.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
                "best": best,
            }
            partial = checkpoint.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(checkpoint)
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in smooth.module.state_dict().items()
        if not name.endswith("num_batches_tracked") and not name.startswith(entry.unused)
    }
    partial = out.with_suffix(".partial")
    save_file(tensors, partial, metadata={"model": model, "classes": str(entry.classes)})
    partial.replace(out)
    checkpoint.unlink()
    click.echo(f"{out}: val mIoU {score:.4f}")


if __name__ == "__main__":
    main()

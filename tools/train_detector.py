"""Train the demo detector on the cars, pedestrians and bicyclists of a folder of label maps.

    python tools/train_detector.py --data DIR --out calib/camvid-retinanet/weights.safetensors

``DIR`` is in CamVid or Cityscapes layout. The body starts from the demo BiSeNet's weights (``--init``). The
run checkpoints after every epoch beside ``--out`` and goes on where it stopped when it is started again.
Whenever the validation is the best so far, the weights are written: the exponential moving average, in
float16.

Recipe: torchvision's own losses, AdamW with weight decay 0.05 (none on norms and biases), one-cycle
learning rate (a quarter of it for the body), bfloat16 autocast, channels-last, random scale, crop, flip and
colour. Boxes are drawn around the label regions that are left after the crop; every one of at least
``--min-side`` is an object, also where it is too small for the metric.
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from zmask_export.data.regions import RegionFolder, find_boxes, sides
from zmask_export.data.segmentation import SegmentationFolder
from zmask_export.evaluate.average_precision import AveragePrecision, Truths, judge
from zmask_export.models.detection.demo import SIZE, camvid_retinanet
from zmask_export.runtime.detections import Detections

Target = dict[str, Tensor]


def start(network: RetinaNet, body: Path) -> None:
    """Load the body from a BiSeNet, and let the heads' signal keep its size from layer to layer."""
    missing, _ = network.backbone.body.load_state_dict(load_file(body), strict=False)
    if any(not name.endswith("num_batches_tracked") for name in missing):
        raise click.UsageError(f"{body} holds no BiSeNet: {missing[0]} is missing.")
    for head in (network.head.classification_head, network.head.regression_head):
        for layer in head.conv.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def augment(
    image: Tensor, labels: Tensor, crop: tuple[int, int], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random scale, crop, flip, brightness, contrast, saturation. Image comes back in [0, 1].

    What lies outside the image is grey and unlabelled.
    """
    x, y, inside = random_view(image, labels, crop, rng, scales=(0.7, 1.7), padding="border")
    return recolour(torch.where(inside, x, 0.45), rng), y


def batches(
    samples: list[tuple[Tensor, Tensor]],
    objects: dict[int, int],
    size: int,
    crop: tuple[int, int],
    min_side: float,
    seed: int,
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """One epoch of augmented batches, in an order that depends on the seed alone."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(samples))[: len(samples) // size * size].reshape(-1, size)
    for indices in order:
        images, targets = [], []
        for i in indices:
            image, labels = augment(*samples[i], crop, rng)
            boxes, classes = find_boxes(labels.numpy(), objects)
            kept = sides(boxes) >= min_side
            images.append(image)
            targets.append(
                {"boxes": torch.from_numpy(boxes[kept]), "labels": torch.from_numpy(classes[kept])}
            )
        yield images, targets


def loss_of(network: RetinaNet, images: list[Tensor], targets: list[Target]) -> Tensor:
    """torchvision's losses, computed in float32 on outputs of bfloat16 layers."""
    batch, targets = network.transform(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = batch.tensors.contiguous(memory_format=torch.channels_last)
        features = list(network.backbone(x).values())
        outputs = network.head(features)
    outputs = {name: value.float() for name, value in outputs.items()}
    anchors = network.anchor_generator(batch, features)
    return sum(network.compute_loss(targets, outputs, anchors).values(), torch.zeros(()))


@torch.no_grad()
def validate(network: RetinaNet, folder: RegionFolder) -> AveragePrecision:
    """Average precision over a split."""
    network.eval()
    truths, found = [], []
    for sample in folder:
        image = torch.from_numpy(sample.image.transpose(2, 0, 1) / np.float32(255))
        result = network([image])[0]
        truths.append(Truths.of(sample))
        found.append(Detections(*(result[k].numpy() for k in ("boxes", "scores", "labels"))))
    return judge(truths, found, folder.categories)


def write(network: nn.Module, out: Path) -> None:
    """The weights in float16, whole or not at all."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    partial = out.with_suffix(".partial")
    save_file(tensors, partial, metadata={"model": "camvid-retinanet"})
    partial.replace(out)


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data set folder.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Weights to write.")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    default=Path("calib/bisenet/weights.safetensors"),
    help="BiSeNet's weights.",
)
@click.option("--epochs", default=42)
@click.option("--batch", default=8)
@click.option("--lr", default=2e-3, help="Peak learning rate.")
@click.option("--crop", nargs=2, default=(320, 416), help="Crop height and width.")
@click.option("--min-side", default=8.0, help="Smallest object to learn, root of its box's area.")
@click.option("--freeze-norms", is_flag=True, help="Keep the body's batch norm statistics.")
@click.option("--validate-every", default=3, help="Epochs between validations.")
@click.option("--average", default=0.995, help="Decay of the moving average, per step.")
@click.option("--threads", default=torch.get_num_threads(), help="CPU threads.")
@click.option("--seed", default=0)
def main(
    data: Path,
    out: Path,
    init: Path,
    epochs: int,
    batch: int,
    lr: float,
    crop: tuple[int, int],
    min_side: float,
    freeze_norms: bool,
    validate_every: int,
    average: float,
    threads: int,
    seed: int,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    network = camvid_retinanet()
    start(network, init)
    network = network.to(memory_format=torch.channels_last)
    smooth = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(average), use_buffers=True
    )
    samples = [
        (torch.tensor(s.image).permute(2, 0, 1), torch.tensor(s.labels))
        for s in SegmentationFolder(data, "train", size=SIZE)
    ]
    val = RegionFolder(data, "val", size=SIZE)
    groups = []
    for part, rate in ((network.backbone.body, 0.25), (network.backbone.fpn, 1), (network.head, 1)):
        for decay, chosen in ((0.05, True), (0.0, False)):
            parameters = [p for p in part.parameters() if (p.ndim > 1) is chosen]
            groups.append({"params": parameters, "weight_decay": decay, "lr": lr * rate})
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = len(samples) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=epochs * steps, pct_start=0.1
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = out.with_suffix(".checkpoint.pt")
    identity = [len(samples), epochs, batch, lr, *crop, min_side, freeze_norms, average, seed]
    first, best = 0, -1.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["identity"] != identity:
            raise click.UsageError(f"{checkpoint} is of a run with other settings: move it away.")
        network.load_state_dict(state["network"])
        smooth.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first, best = state["epoch"], state["best"]
    started = time.monotonic()
    with Progress() as progress:
        task = progress.add_task("training", total=epochs, completed=first)
        for epoch in range(first, epochs):
            network.train()
            if freeze_norms:
                network.backbone.eval()
            running = 0.0
            for images, targets in batches(
                samples, val.objects, batch, crop, min_side, seed * 100_003 + epoch
            ):
                loss = loss_of(network, images, targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                smooth.update_parameters(network)
                running += loss.item()
            line = f"epoch {epoch + 1}: loss {running / steps:.3f}"
            if (epoch + 1) % validate_every == 0 or epoch + 1 == epochs:
                result = validate(smooth.module, val)
                score = result.at_50 or 0.0
                if score > best:
                    best = score
                    write(smooth.module, out)
                line += f", val mAP {score:.4f} at IoU 0.5 (best {best:.4f}),"
                line += f" {result.at_50_95 or 0.0:.4f} at 0.5 to 0.95"
                for name, value in result.classes_at_50.items():
                    line += f", {name} {value or 0.0:.3f}"
            line += f", {time.monotonic() - started:.0f} s"
            progress.console.print(line, highlight=False, soft_wrap=True)
            progress.advance(task)
            state = {
                "identity": identity,
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
    checkpoint.unlink(missing_ok=True)
    click.echo(f"{out}: val mAP at IoU 0.5 {best:.4f}")


if __name__ == "__main__":
    main()

"""Train MaskNet, the rival defense of Eq. 15, for one network.

    python tools/train_masknet.py --model icnet --data CAMVID --patch patch.png --out masknet.safetensors

Solves min over MaskNet's weights of E max over the patch of L(f(x * M(x)), y), L the cross-entropy of the
pixels outside the patch. A quarter of the images stays clean and half carries a given patch, made against
the bare network. The last quarter carries a live patch, which climbs the loss through MaskNet before
every step of the weights; it starts each epoch anew, from a given patch or from noise in turn.

The run checkpoints after every epoch beside ``--out`` and goes on where it stopped when it is started
again, to the same weights. They are written in float16.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export import __version__
from zmask_export.artifacts.files import require_writable, sha256_file, write_bytes
from zmask_export.attack import patch as patches
from zmask_export.attack.placement import paste, patch_masks, random_placement
from zmask_export.attack.transforms import Appearance, vary
from zmask_export.data.images import to_float
from zmask_export.data.segmentation import IGNORE, Sample, SegmentationFolder, require_classes
from zmask_export.defense.baselines.masknet import MaskNet, save_masknet
from zmask_export.errors import ZMaskError
from zmask_export.models.folding import fold_batch_norms
from zmask_export.models.registry import normalise
from zmask_export.pipeline.network import NetworkOptions, open_network
from zmask_export.spec import Preprocess


@dataclass(frozen=True)
class Settings:
    """Settings of one run.

    Attributes:
        epochs: passes over the images.
        batch: images a step of the weights; the live patch takes part from 4 on.
        lr: Adam's step, which follows a cosine to a hundredth.
        ascent: steps of the live patch before each step of the weights.
        ascent_step: size of such a step, as a share of the colour range.
        appearance: how patches vary.
        seed: of everything random.
    """

    epochs: int = 30
    batch: int = 8
    lr: float = 2e-3
    ascent: int = 2
    ascent_step: float = 0.03
    appearance: Appearance = field(default_factory=Appearance)
    seed: int = 0

    def learning_rate(self, epoch: int) -> float:
        """Adam's step in an epoch."""
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs)))


class Trainer:
    """MaskNet in front of a frozen network.

    Args:
        network: the bare network; it is not changed.
        preprocess: its normalisation.
        given: patches (3, h, w) in [0, 1], made against the bare network.
        settings: see :class:`Settings`.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        given: Sequence[Tensor],
        settings: Settings,
    ) -> None:
        self.network = fold_batch_norms(network).to(memory_format=torch.channels_last)
        self.preprocess = preprocess
        self.given = given
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.masknet = MaskNet().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.masknet.parameters(), lr=settings.lr)

    def epoch(self, index: int, samples: Sequence[Sample]) -> float:
        """One pass over the images in an order of its own; returns the mean loss."""
        rng = np.random.default_rng((self.settings.seed, index))
        self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate(index)
        live = self.fresh_patch(index, rng)
        order = rng.permutation(len(samples))
        losses = []
        for start in range(0, len(order), self.settings.batch):
            group = [samples[i] for i in order[start : start + self.settings.batch]]
            image = torch.from_numpy(to_float([sample.image for sample in group]))
            labels = torch.from_numpy(np.stack([sample.labels for sample in group])).long()
            for _ in range(self.settings.ascent):
                live = self.ascend(live, image[3::4], labels[3::4], rng)
            losses.append(self.descend(live, image, labels, rng))
        return float(np.mean(losses))

    def fresh_patch(self, index: int, rng: np.random.Generator) -> Tensor:
        """Where the live patch starts: each given patch and noise of its size, in turn."""
        patch = self.given[index // 2 % len(self.given)]
        if index % 2:
            return patch
        return torch.from_numpy(rng.random(tuple(patch.shape), dtype=np.float32))

    def ascend(
        self, live: Tensor, image: Tensor, labels: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """The live patch after one step up the loss of the masked network, by the gradient's sign."""
        if not len(image):
            return live
        live = live.clone().requires_grad_(True)
        self.masknet.eval()  # only steps of the weights may move the batch norms
        loss = self.loss(*self.attacked(image, labels, [live] * len(image), rng))
        (gradient,) = torch.autograd.grad(loss, live)
        step = self.settings.ascent_step * gradient.sign()
        return (live.detach() + step).clamp(0, 1)

    def descend(
        self, live: Tensor, image: Tensor, labels: Tensor, rng: np.random.Generator
    ) -> float:
        """One step of the weights down the loss; of four images one is clean, two carry a given patch."""
        carried: list[Tensor | None] = []
        for index in range(len(image)):
            given = self.given[int(rng.integers(len(self.given)))]
            carried.append((None, given, given, live)[index % 4])
        self.masknet.train()
        loss = self.loss(*self.attacked(image, labels, carried, rng))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def attacked(
        self,
        image: Tensor,
        labels: Tensor,
        carried: Sequence[Tensor | None],
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Images with their patches at random places, and labels with IGNORE below the patches."""
        size = (int(image.shape[2]), int(image.shape[3]))
        scale = self.settings.appearance.scale
        images, maps = [], []
        for x, y, patch in zip(image.split(1), labels.split(1), carried, strict=True):
            if patch is not None:
                shape = (int(patch.shape[1]), int(patch.shape[2]))
                places = [random_placement(rng, size, shape, scale)]
                x = paste(x, [vary(patch, self.settings.appearance, rng)], places)
                y = y.masked_fill(patch_masks(places, size), IGNORE)
            images.append(x)
            maps.append(y)
        return torch.cat(images), torch.cat(maps)

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """L(f(x * M(x)), y): cross-entropy over the pixels that have a label."""
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.network(normalise(self.masknet.protect(image), self.preprocess))
        total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
        return total / (labels != IGNORE).sum().clamp(min=1)

    def dump(self, identity: str, epoch: int) -> bytes:
        """A checkpoint after an epoch."""
        buffer = io.BytesIO()
        state = {
            "identity": identity,
            "epoch": epoch,
            "masknet": self.masknet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, buffer)
        return buffer.getvalue()

    def resume(self, identity: str, checkpoint: Path) -> int:
        """Take up a checkpoint; returns the epochs that it has behind it, 0 if it is of something else."""
        try:
            state = torch.load(checkpoint, weights_only=True)
            if state["identity"] != identity:
                return 0
            masknet, optimizer, epoch = state["masknet"], state["optimizer"], int(state["epoch"])
        except Exception:  # a damaged file makes torch.load fail in every way there is
            return 0  # and only costs the time that it would have saved
        self.masknet.load_state_dict(masknet)
        self.optimizer.load_state_dict(optimizer)
        return epoch


def train(
    trainer: Trainer, samples: Sequence[Sample], checkpoint: Path, identity: str
) -> Iterator[tuple[int, float]]:
    """Run all epochs, or those that are left; yields the number of finished ones and the mean loss.

    Args:
        trainer: see :class:`Trainer`.
        samples: labelled images of one size.
        checkpoint: where progress is kept after every epoch.
        identity: what the checkpoint must belong to; another one is ignored.
    """
    identity = f"{identity} {trainer.settings}"
    for index in range(trainer.resume(identity, checkpoint), trainer.settings.epochs):
        loss = trainer.epoch(index, samples)
        write_bytes(checkpoint, trainer.dump(identity, index + 1))
        yield index + 1, loss


_FILE = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option("--model", default="icnet", help="Network to defend.")
@click.option("--weights", type=_FILE, help="Its weights; the shipped ones by default.")
@click.option("--data", type=_FILE, required=True, help="CamVid or Cityscapes folder.")
@click.option("--patch", "files", type=_FILE, multiple=True, required=True, help="One or more.")
@click.option("--out", type=_FILE, required=True, help="Weights to write (.safetensors).")
@click.option("--images", default=None, type=click.IntRange(1), help="Images; all by default.")
@click.option("--epochs", default=Settings.epochs, type=click.IntRange(1))
@click.option("--batch", default=Settings.batch, type=click.IntRange(1))
@click.option("--lr", default=Settings.lr, help="Adam's step.")
@click.option(
    "--ascent", default=Settings.ascent, type=click.IntRange(0), help="Steps of the patch."
)
@click.option("--seed", default=Settings.seed)
def main(**options: Any) -> None:
    settings = {f.name: options.pop(f.name) for f in fields(Settings) if f.name in options}
    try:
        run(settings=Settings(**settings), **options)
    except ZMaskError as exc:
        raise click.ClickException(str(exc)) from exc


def run(
    model: str,
    weights: Path | None,
    data: Path,
    files: Sequence[Path],
    out: Path,
    images: int | None,
    settings: Settings,
) -> None:
    """Open everything, train, write the weights."""
    require_writable(out)
    opened = open_network(NetworkOptions(model=model, weights=weights))
    folder = SegmentationFolder(data, "train", size=opened.input_size, limit=images)
    require_classes(folder, opened.classes)
    given = [patches.load(path) for path in files]
    hashes = [sha256_file(path) for path in files]
    samples = list(folder)
    trainer = Trainer(opened.network, opened.preprocess, given, settings)
    checkpoint = out.with_name(f".{out.name}.progress")
    identity = f"{opened.weights_sha256} {hashes} {[s.path.name for s in samples]}"
    with Progress() as progress:
        task = progress.add_task("training", total=settings.epochs)
        for epoch, loss in train(trainer, samples, checkpoint, identity):
            progress.console.print(f"epoch {epoch}: loss {loss:.4f}", highlight=False)
            progress.update(task, completed=epoch)
    record = {key: str(value) for key, value in asdict(settings).items()} | {
        "tool_version": __version__,
        "model": model,
        "weights_sha256": opened.weights_sha256,
        "images": str(len(samples)),
        "patches_sha256": " ".join(hashes),
    }
    save_masknet(out, trainer.masknet, record)
    checkpoint.unlink(missing_ok=True)
    click.echo(f"{out}: trained on {len(samples)} images with {len(given)} patches")


if __name__ == "__main__":
    main()

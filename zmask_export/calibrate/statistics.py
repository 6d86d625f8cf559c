"""One pass over clean images: per-channel mean and standard deviation of every tap.

The pass streams: one batch of images is held at a time. It checkpoints beside the output and goes on
where it stopped, to the same file to the last bit, because batches are merged in a fixed order. The
batches may come from elsewhere (:mod:`zmask_export.calibrate.shards`): none reaches over the border of
a shard, so shards that are measured apart give the batches, and the result, of one pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from zmask_export.artifacts.files import write_bytes
from zmask_export.calibrate.moments import Moments
from zmask_export.data.images import Frame, ImageSource, to_float
from zmask_export.errors import DatasetError, ImageError, OutputError, WeightsError
from zmask_export.models.bare import BareNetwork

SAVE_EVERY_S = 20.0
"""Seconds between two checkpoints."""

SHARD_BATCHES = 4
"""Batches a shard; shards start at multiples of this many batches of files."""

_KEY = "zmask-export-progress"


@dataclass(frozen=True)
class Counted:
    """What stays of a frame that was measured: its name and the sha256 of its file."""

    name: str
    digest: str


@dataclass(frozen=True)
class Step:
    """What one batch of images gave.

    Attributes:
        consumed: files read for it, bad ones counted.
        frames: the images that were measured; none where all files were bad.
        moments: tap to its moments over them.
        skipped: why the bad files were left out.
    """

    consumed: int
    frames: tuple[Counted, ...]
    moments: dict[str, Moments]
    skipped: tuple[ImageError, ...]


Walk = Callable[[int], Iterator[Step]]
"""From a number of files consumed to the steps that come after them."""


@dataclass(frozen=True)
class Progress:
    """How far a pass has come.

    Attributes:
        position: files consumed.
        images: images counted.
        digest: chained sha256 over names and contents of the images counted.
        moments: tap to its moments.
    """

    position: int = 0
    images: int = 0
    digest: str = ""
    moments: dict[str, Moments] = field(default_factory=dict)

    def after(self, step: Step) -> Progress:
        """The progress one step further; this one stays whole, whatever interrupts."""
        moments = dict(self.moments)
        for tap, found in step.moments.items():
            moments[tap] = moments[tap].merge(found) if tap in moments else found
        return Progress(
            self.position + step.consumed,
            self.images + len(step.frames),
            chained(self.digest, step.frames),
            moments,
        )


def chained(digest: str, frames: Sequence[Frame | Counted]) -> str:
    """A digest with the names and contents of more frames."""
    for frame in frames:
        text = f"{digest}\n{frame.name}\n{frame.digest}".encode()
        digest = hashlib.sha256(text).hexdigest()
    return digest


def measure(
    bare: BareNetwork,
    source: ImageSource,
    *,
    batch: int = 4,
    checkpoint: Path | None = None,
    identity: str = "",
    walk: Walk | None = None,
    on_image: Callable[[int], None] | None = None,
    on_skip: Callable[[ImageError], None] | None = None,
) -> Progress:
    """Moments of every tap of ``bare`` over the images of ``source``.

    Args:
        bare: the network with the taps to measure.
        source: clean images.
        batch: images a forward pass; part of what makes the result reproducible to the last bit.
        checkpoint: where to keep progress; None keeps none.
        identity: what the checkpoint must belong to (weights, settings); a checkpoint of something
            else is ignored.
        walk: measures the batches elsewhere, as :func:`steps` would here; None measures them here.
        on_image: told the number of files consumed so far.
        on_skip: told why a bad file was left out.

    Raises:
        DatasetError: not a single image could be used.
        ImageError: a bad image, unless the source skips them.
        WeightsError: a tap gives values that are not finite.
    """
    identity = _identity(identity, source, batch)
    progress = _resume(checkpoint, identity)
    if on_image is not None:
        on_image(progress.position)
    saved = time.monotonic()
    start = progress.position
    try:
        for step in steps(bare, source, batch=batch, start=start) if walk is None else walk(start):
            progress = progress.after(step)
            if on_skip is not None:
                for error in step.skipped:
                    on_skip(error)
            if on_image is not None:
                on_image(progress.position)
            if checkpoint is not None and time.monotonic() - saved > SAVE_EVERY_S:
                write_bytes(checkpoint, _dump(progress, identity))
                saved = time.monotonic()
    except BaseException:
        # A bad file, or Ctrl-C, costs no batch that was measured.
        if checkpoint is not None and progress.position > start:
            with contextlib.suppress(OutputError):
                write_bytes(checkpoint, _dump(progress, identity))
        raise
    if not progress.images:
        raise DatasetError(
            "Not one of the images could be used.",
            fix="Give 8-bit RGB images, or pass --on-bad-image convert.",
        )
    return progress


def shard_size(batch: int) -> int:
    """Files a shard, for a number of images a forward pass."""
    return batch * SHARD_BATCHES


def steps(
    bare: BareNetwork, source: ImageSource, *, batch: int, start: int = 0, offset: int = 0
) -> Iterator[Step]:
    """Measure batch after batch.

    Args:
        bare: the network with the taps to measure.
        source: clean images.
        batch: images a forward pass.
        start: files of the source to pass over.
        offset: files that come before the source's own, where it is a part of another.

    Raises:
        ImageError, WeightsError: see :func:`measure`.
    """
    skipped: list[ImageError] = []
    frames = source.frames(start, on_skip=skipped.append)
    for group, consumed in _batches(frames, batch, offset + start):
        moments = _measure_batch(bare, group) if group else {}
        counted = tuple(Counted(frame.name, frame.digest) for frame in group)
        del group  # or two batches would be held while the next is read
        yield Step(consumed, counted, moments, tuple(skipped))
        skipped.clear()


def _measure_batch(bare: BareNetwork, frames: list[Frame]) -> dict[str, Moments]:
    image = torch.from_numpy(to_float([frame.image for frame in frames]))
    with torch.inference_mode():
        _, features = bare(image)
    found = {}
    for tap, value in features.items():
        moments = found[tap] = Moments.of(value)
        if not np.isfinite(moments.m2).all():
            raise WeightsError(
                f"The tap {tap} gives values that are not finite on {frames[0].name}.",
                fix="Check the weights and --preprocess.",
            )
    return found


def _batches(
    frames: Iterator[Frame | None], size: int, position: int
) -> Iterator[tuple[list[Frame], int]]:
    """Groups of up to ``size`` good frames of one shard, with the number of files each consumed."""
    shard = shard_size(size)
    while True:
        group: list[Frame] = []
        consumed = 0
        for frame in frames:
            consumed += 1
            if frame is not None:
                group.append(frame)
            if len(group) == size or (position + consumed) % shard == 0:
                break
        if not consumed:
            return
        position += consumed
        yield group, consumed


def _identity(identity: str, source: ImageSource, batch: int) -> str:
    names = "\n".join(source.names)
    grouping = f"{batch} {shard_size(batch)}"
    text = f"{identity}\n{source.size}\n{source.rule}\n{source.version}\n{grouping}\n{names}"
    return hashlib.sha256(text.encode()).hexdigest()


def _dump(progress: Progress, identity: str) -> bytes:
    tensors = {}
    counts = {}
    for tap, moments in progress.moments.items():
        tensors[f"mean/{tap}"] = moments.mean
        tensors[f"m2/{tap}"] = moments.m2
        counts[tap] = moments.count
    state = {
        "identity": identity,
        "position": progress.position,
        "images": progress.images,
        "digest": progress.digest,
        "counts": counts,
    }
    return save_tensors(tensors, metadata={_KEY: json.dumps(state)})


def _resume(checkpoint: Path | None, identity: str) -> Progress:
    if checkpoint is None or not checkpoint.exists():
        return Progress()
    data = checkpoint.read_bytes()
    try:
        tensors = load_tensors(data)
        size = int.from_bytes(data[:8], "little")
        state = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_KEY])
        if state["identity"] != identity:
            return Progress()
        moments = {
            tap: Moments(count, tensors[f"mean/{tap}"], tensors[f"m2/{tap}"])
            for tap, count in state["counts"].items()
        }
        return Progress(state["position"], state["images"], state["digest"], moments)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # A checkpoint that cannot be read only costs the time it would have saved.
        return Progress()

"""One pass over clean images: per-channel mean and standard deviation of every tap.

The pass streams: one batch of images is held at a time. It checkpoints beside the output and goes on
where it stopped, to the same file to the last bit, because batches are merged in a fixed order.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
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
from zmask_export.errors import DatasetError, ImageError, WeightsError
from zmask_export.models.bare import BareNetwork

SAVE_EVERY_S = 20.0
"""Seconds between two checkpoints."""

_KEY = "zmask-export-progress"


@dataclass
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

    def add(self, frames: list[Frame]) -> None:
        """Count frames into the digest."""
        for frame in frames:
            chained = f"{self.digest}\n{frame.name}\n{frame.digest}".encode()
            self.digest = hashlib.sha256(chained).hexdigest()
        self.images += len(frames)


def measure(
    bare: BareNetwork,
    source: ImageSource,
    *,
    batch: int = 4,
    checkpoint: Path | None = None,
    identity: str = "",
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
    frames = source.frames(progress.position, on_skip=on_skip)
    for group, consumed in _batches(frames, batch):
        if group:
            _measure_batch(bare, group, progress)
            progress.add(group)
        del group  # or two batches would be held while the next is read
        progress.position += consumed
        if on_image is not None:
            on_image(progress.position)
        if checkpoint is not None and time.monotonic() - saved > SAVE_EVERY_S:
            write_bytes(checkpoint, _dump(progress, identity))
            saved = time.monotonic()
    if not progress.images:
        raise DatasetError(
            "Not one of the images could be used.",
            fix="Give 8-bit RGB images, or pass --on-bad-image convert.",
        )
    return progress


def _measure_batch(bare: BareNetwork, frames: list[Frame], progress: Progress) -> None:
    image = torch.from_numpy(to_float([frame.image for frame in frames]))
    with torch.inference_mode():
        _, features = bare(image)
    for tap, value in features.items():
        moments = Moments.of(value)
        if not np.isfinite(moments.m2).all():
            raise WeightsError(
                f"The tap {tap} gives values that are not finite on {frames[0].name}.",
                fix="Check the weights and --preprocess.",
            )
        before = progress.moments.get(tap)
        progress.moments[tap] = moments if before is None else before.merge(moments)


def _batches(frames: Iterator[Frame | None], size: int) -> Iterator[tuple[list[Frame], int]]:
    """Groups of up to ``size`` good frames, with the number of files each consumed."""
    while True:
        group: list[Frame] = []
        consumed = 0
        for frame in frames:
            consumed += 1
            if frame is not None:
                group.append(frame)
            if len(group) == size:
                break
        if not consumed:
            return
        yield group, consumed


def _identity(identity: str, source: ImageSource, batch: int) -> str:
    names = "\n".join(source.names)
    text = f"{identity}\n{source.size}\n{source.rule}\n{source.version}\n{batch}\n{names}"
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

"""Cells: one subject under one attack, image by image, and the files that keep them.

A cell holds judgements per image, not finished numbers: metrics, intervals and comparisons are taken from
cells alone. A study is resumed by the cells that are on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from torch import Tensor

from zmask_export.artifacts.files import write_bytes
from zmask_export.attack.placement import patch_masks, random_placement
from zmask_export.data.images import to_float
from zmask_export.evaluate.metrics import mask_iou
from zmask_export.evaluate.subjects import Image, Inside, Outcome, Subject
from zmask_export.evaluate.task import Labelled, PartT, Record, Samples, SampleT, Task

FORMAT_VERSION = 1
_KEY = "zmask-export-cell"


@dataclass(frozen=True)
class Cell:
    """What a subject did on n images.

    Attributes:
        record: what its answers were worth; None of a subject that only scores.
        mask_iou: IoU of covered pixels and patch, float64 (n,); None where nothing is masked.
        covered: share of pixels covered, float64 (n,); likewise.
        scores: detector to scores, float64 (n,).
    """

    record: Record | None = None
    mask_iou: NDArray[np.float64] | None = None
    covered: NDArray[np.float64] | None = None
    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def of(self, picked: Sequence[int]) -> Cell:
        """The same of some of the images, by index."""
        rows = list(picked)
        return Cell(
            record=None if self.record is None else self.record.of(rows),
            mask_iou=None if self.mask_iou is None else self.mask_iou[rows],
            covered=None if self.covered is None else self.covered[rows],
            scores={name: scores[rows] for name, scores in self.scores.items()},
        )


def scene(sample: Labelled, patch: Tensor | None, index: int, seed: int) -> tuple[Image, Inside]:
    """A sample as float32 (1, 3, H, W), with the patch at a random place, and where that is.

    The place depends on seed, index and the patch's size alone: patches of one size are compared
    at the same places.

    Args:
        sample: the labelled image.
        patch: (3, h, w) in [0, 1]; None leaves the image clean.
        index: of the image in its set.
        seed: of the places.

    Raises:
        PatchError: the patch is larger than the image.
    """
    image = to_float([sample.image])
    size = (image.shape[2], image.shape[3])
    if patch is None:
        return image, np.zeros(size, bool)
    rng = np.random.default_rng((seed, index))
    place = random_placement(rng, size, (patch.shape[1], patch.shape[2]))
    image[0, :, place.rows, place.columns] = patch.numpy()
    return image, patch_masks([place], size)[0].numpy()


@dataclass(frozen=True)
class Judged:
    """What a subject's answer to one image was worth.

    Attributes:
        part: the task's part of a record; None of a subject that only scores.
        numbers: by name, what does not depend on the task.
    """

    part: Any
    numbers: Mapping[str, float]


def measure(
    subject: Subject,
    samples: Samples[SampleT],
    task: Task[SampleT, PartT],
    patch: Tensor | None = None,
    *,
    seed: int = 0,
    picked: Sequence[int] | None = None,
    on_image: Callable[[int], None] | None = None,
) -> Cell:
    """Run a subject over all images.

    Args:
        subject: what to measure.
        samples: labelled images of its size; read one at a time.
        task: judges the answers.
        patch: (3, h, w) in [0, 1], pasted as :func:`scene` says; None measures clean images.
        seed: of the places.
        picked: indices of the images to run; None runs all.
        on_image: told the number of images done.

    Raises:
        PatchError: the patch is larger than the images.
    """
    return join(
        task, judge(subject, samples, task, patch, seed=seed, picked=picked, on_image=on_image)
    )


def judge(
    subject: Subject,
    samples: Samples[SampleT],
    task: Task[SampleT, PartT],
    patch: Tensor | None = None,
    *,
    seed: int = 0,
    picked: Sequence[int] | None = None,
    on_image: Callable[[int], None] | None = None,
) -> list[Judged]:
    """The images of :func:`measure`, one by one: what :func:`join` makes a cell of."""
    judged = []
    for done, index in enumerate(range(len(samples)) if picked is None else picked, start=1):
        sample = samples[index]
        image, inside = scene(sample, patch, index, seed)
        outcome = subject(image, inside)
        judged.append(Judged(task.judge(outcome, sample, inside), _numbers(outcome, inside)))
        if on_image is not None:
            on_image(done)
    return judged


def join(task: Task[SampleT, PartT], judged: Sequence[Judged]) -> Cell:
    """The cell of images in their order."""
    parts = [image.part for image in judged if image.part is not None]
    rows: dict[str, list[float]] = {}
    for image in judged:
        for name, value in image.numbers.items():
            rows.setdefault(name, []).append(value)
    record = task.join(parts) if parts else None
    return _cell(record, {name: np.array(values) for name, values in rows.items()})


def _numbers(outcome: Outcome, inside: Inside) -> dict[str, float]:
    """What does not depend on the task."""
    row: dict[str, float] = {}
    if outcome.kept is not None:
        row["mask_iou"] = mask_iou(~outcome.kept, inside)
        row["covered"] = float((~outcome.kept).mean())
    return row | {f"score/{name}": value for name, value in outcome.scores.items()}


def fingerprint(settings: Mapping[str, Any]) -> str:
    """sha256 of all that decides a cell: subject, patch, images, seed (JSON values)."""
    text = json.dumps({"format": FORMAT_VERSION, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save(path: Path, cell: Cell, identity: str) -> None:
    """Write a cell, whole or not at all; equal cells give equal bytes.

    Raises:
        OutputError: it cannot be written.
    """
    tensors: dict[str, NDArray[Any]] = {f"score/{n}": s for n, s in cell.scores.items()}
    tensors |= {} if cell.record is None else cell.record.tensors()
    for name in ("mask_iou", "covered"):
        value = getattr(cell, name)
        if value is not None:
            tensors[name] = value
    write_bytes(path, save_tensors(tensors, metadata={_KEY: identity}))


def load(path: Path, identity: str, task: Task[Any, Any]) -> Cell | None:
    """A stored cell; None where there is none, or it is damaged or of other settings.

    A cell that cannot be used only costs the time it would have saved.
    """
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
        if metadata[_KEY] != identity:
            return None
        tensors = load_tensors(data)
        return _cell(task.read(tensors), tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _cell(record: Record | None, arrays: Mapping[str, NDArray[Any]]) -> Cell:
    scores = {n.removeprefix("score/"): v for n, v in arrays.items() if n.startswith("score/")}
    return Cell(
        record=record,
        mask_iou=arrays.get("mask_iou"),
        covered=arrays.get("covered"),
        # safetensors lists tensors in an order of its own.
        scores=dict(sorted(scores.items())),
    )

"""Object detection: boxes with classes, judged by mean average precision beside the patch.

What of an image counts is in ``average_precision.beside_patch``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from zmask_export import spec
from zmask_export.data.coco import BoxSample
from zmask_export.evaluate.average_precision import Matches, Truths, beside_patch
from zmask_export.evaluate.bootstrap import Weights
from zmask_export.evaluate.subjects import Inside, Outcome
from zmask_export.evaluate.task import Metric
from zmask_export.runtime.detections import Detections

IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""Over which mAP@[.5:.95] is averaged."""

_Part = tuple[Truths, Detections]
_ListT = TypeVar("_ListT", Truths, Detections)


@dataclass(frozen=True)
class Finds:
    """The record of detections, see ``task.Record``.

    Attributes:
        truths: the true objects of each image, n items.
        found: what was found in each of them.
    """

    truths: tuple[Truths, ...]
    found: tuple[Detections, ...]

    def of(self, picked: Sequence[int]) -> Finds:
        """Some of the images."""
        return Finds(tuple(self.truths[i] for i in picked), tuple(self.found[i] for i in picked))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """For a file: every field of all images in a row, and how many rows belong to each."""
        return _packed("truth", self.truths) | _packed("found", self.found)

    def metrics(self) -> dict[str, Metric]:
        """``map_50`` and ``map_50_95``."""
        return {
            "map_50": functools.partial(self._average, IOUS[:1]),
            "map_50_95": functools.partial(self._average, IOUS),
        }

    def _average(self, thresholds: Sequence[float], weights: Weights) -> NDArray[np.float64]:
        # A class without any object has no average precision, so those that occur are all that count.
        classes = {int(label) for truths in self.truths for label in truths.labels}
        values = []
        for threshold in thresholds:
            matches = Matches(dict.fromkeys(sorted(classes), ""), threshold)
            for truths, found in zip(self.truths, self.found, strict=True):
                matches.add(truths, found)
            values.append(matches.average_precision(weights))
        return np.mean(values, axis=0)


@dataclass(frozen=True)
class ObjectDetection:
    """The task, see ``task.Task``."""

    @property
    def name(self) -> spec.Task:
        """Of the task."""
        return "detection"

    def judge(self, outcome: Outcome, sample: BoxSample, inside: Inside) -> _Part | None:
        """What counts of one image."""
        if outcome.detections is None:
            return None
        truths = Truths.of(sample)
        if not inside.any():
            return truths, outcome.detections
        return beside_patch(truths, outcome.detections, _corners(inside))

    def join(self, parts: Sequence[_Part]) -> Finds:
        """The record of n images."""
        return Finds(tuple(truths for truths, _ in parts), tuple(found for _, found in parts))

    def read(self, tensors: Mapping[str, NDArray[Any]]) -> Finds | None:
        """The record of a file."""
        if "found/count" not in tensors:
            return None
        truths = _unpacked(Truths, "truth", tensors)
        found = _unpacked(Detections, "found", tensors)
        if len(truths) != len(found):
            raise ValueError(f"{len(truths)} images have objects and {len(found)} detections")
        return Finds(truths, found)


def _corners(inside: Inside) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 of the patch, the last two exclusive."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _packed(name: str, images: Sequence[Truths | Detections]) -> dict[str, NDArray[Any]]:
    """Tensor name to the values of all images, one after the other."""
    tensors = {f"{name}/count": np.array([len(image.labels) for image in images], np.int64)}
    for column in fields(images[0]):
        values = [getattr(image, column.name) for image in images]
        tensors[f"{name}/{column.name}"] = np.concatenate(values)
    return tensors


def _unpacked(
    kind: type[_ListT], name: str, tensors: Mapping[str, NDArray[Any]]
) -> tuple[_ListT, ...]:
    counts = tensors[f"{name}/count"]
    columns = []
    for column in fields(kind):
        values = tensors[f"{name}/{column.name}"]
        if len(values) != counts.sum():
            raise ValueError(f"{name}/{column.name} has {len(values)} rows, not {counts.sum()}")
        columns.append(np.split(values, np.cumsum(counts)[:-1]))
    return tuple(kind(*image) for image in zip(*columns, strict=True))

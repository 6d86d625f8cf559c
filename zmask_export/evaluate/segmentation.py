"""Segmentation: a class for every pixel, judged by mIoU outside the patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmask_export import spec
from zmask_export.data.segmentation import Sample
from zmask_export.evaluate.bootstrap import Weights
from zmask_export.evaluate.metrics import mean_iou, overlap
from zmask_export.evaluate.subjects import Inside, Outcome
from zmask_export.evaluate.task import Metric


@dataclass(frozen=True)
class Overlaps:
    """The record of segmentations, see ``task.Record``.

    Attributes:
        counts: pixels in intersection and union of each class outside the patch, int64 (n, 2, C).
    """

    counts: NDArray[np.int64]

    def of(self, picked: Sequence[int]) -> Overlaps:
        """Some of the images."""
        return Overlaps(self.counts[list(picked)])

    def tensors(self) -> dict[str, NDArray[Any]]:
        """For a file."""
        return {"overlaps": self.counts}

    def metrics(self) -> dict[str, Metric]:
        """``miou``."""
        return {"miou": self._miou}

    def _miou(self, weights: Weights) -> NDArray[np.float64]:
        flat = self.counts.reshape(len(self.counts), -1).astype(np.float64)
        return mean_iou((weights @ flat).reshape(-1, *self.counts.shape[1:]))


@dataclass(frozen=True)
class Segmentation:
    """The task, see ``task.Task``.

    Attributes:
        classes: number of classes C.
    """

    classes: int

    @property
    def name(self) -> spec.Task:
        """Of the task."""
        return "segmentation"

    def judge(self, outcome: Outcome, sample: Sample, inside: Inside) -> NDArray[np.int64] | None:
        """Counts of one image, (2, C)."""
        if outcome.prediction is None:
            return None
        return overlap(outcome.prediction, sample.labels, self.classes, ~inside)

    def join(self, parts: Sequence[NDArray[np.int64]]) -> Overlaps:
        """The record of n images."""
        return Overlaps(np.array(parts))

    def read(self, tensors: Mapping[str, NDArray[Any]]) -> Overlaps | None:
        """The record of a file."""
        return Overlaps(tensors["overlaps"]) if "overlaps" in tensors else None

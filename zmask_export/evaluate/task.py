"""What a network is asked for: everything that tells segmentation and detection apart.

A :class:`Task` judges one answer after the other; a :class:`Record` holds the judgements of n images and
knows the metrics that follow from them. The rest of this package deals in records alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from zmask_export import spec
from zmask_export.evaluate.bootstrap import Weights
from zmask_export.evaluate.subjects import Inside, Outcome

Metric = Callable[[Weights], NDArray[np.float64]]
"""Weights (B, n) over images to one value a row (B,); NaN where it is not defined."""


class Labelled(Protocol):
    """What every sample has: its image, uint8 (H, W, 3), RGB."""

    @property
    def image(self) -> NDArray[np.uint8]: ...


SampleT = TypeVar("SampleT", bound=Labelled)
SampleT_co = TypeVar("SampleT_co", bound=Labelled, covariant=True)
SampleT_contra = TypeVar("SampleT_contra", bound=Labelled, contravariant=True)
PartT = TypeVar("PartT")


class Samples(Protocol[SampleT_co]):
    """Labelled images of one size, each read when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> SampleT_co: ...


class Record(Protocol):
    """What a network's answers to n images were worth, image by image."""

    def of(self, picked: Sequence[int]) -> Record:
        """The same of some of the images, by index."""
        ...

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file keeps of it."""
        ...

    def metrics(self) -> dict[str, Metric]:
        """Name, as a report's row calls it, to metric; the main one first."""
        ...


class Task(Protocol[SampleT_contra, PartT]):
    """How a network's answers are judged.

    Attributes:
        name: of the task.
    """

    @property
    def name(self) -> spec.Task: ...

    def judge(self, outcome: Outcome, sample: SampleT_contra, inside: Inside) -> PartT | None:
        """One image's part of a record; None where the subject gave no answer."""
        ...

    def join(self, parts: Sequence[PartT]) -> Record:
        """The record of at least one image."""
        ...

    def read(self, tensors: Mapping[str, NDArray[Any]]) -> Record | None:
        """A record from what a file kept of it; None where it keeps none.

        Raises:
            KeyError, ValueError: the file is damaged.
        """
        ...


@dataclass(frozen=True)
class Wording:
    """How reports speak of a task.

    Attributes:
        metric: name of the main metric.
        about: what it counts.
        table: number of the paper's table.
        beta: number of its figure over beta.
    """

    metric: str
    about: str
    table: str
    beta: str


WORDING: Mapping[spec.Task, Wording] = {
    "segmentation": Wording("mIoU", "mIoU outside the patch.", "Table 4(b)", "Figure 6"),
    "detection": Wording(
        "mAP@0.5",
        "mAP@0.5, without objects that the patch mostly covers and detections that mostly lie in it.",
        "Table 4(a)",
        "Figure 13",
    ),
}
"""Task to its wording."""


def main_metric(record: Record) -> Metric:
    """The metric that comparisons are made of."""
    return next(iter(record.metrics().values()))

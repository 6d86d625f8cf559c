"""y_adv of a detector (B.1): the boxes and classes that its losses are taken against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from zmask_export.attack.detector_losses import Target
from zmask_export.attack.placement import Placement
from zmask_export.attack.settings import Goal
from zmask_export.data.coco import BoxSample
from zmask_export.errors import DatasetError

MOST_COVERED = 0.5
"""A box that a patch covers by a larger share of its area is hidden, not attacked."""
SMALLEST = 1.0
"""Smallest side of a target in pixels: torchvision refuses boxes that rounding has emptied."""


def covered(boxes: NDArray[np.float32], place: Placement) -> NDArray[np.float32]:
    """Share of each box's area (n, 4) under a patch, (n,) in [0, 1]."""
    corners = np.array(place.corners, np.float32)
    low = np.maximum(boxes[:, :2], corners[:2])
    high = np.minimum(boxes[:, 2:], corners[2:])
    inside = (high - low).clip(min=0).prod(axis=1)
    return inside / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def free_boxes(sample: BoxSample, place: Placement) -> NDArray[np.bool_]:
    """Which of a sample's boxes are objects to be found although a patch is there, (n,).

    Those are not marked ``crowd``, have sides of :data:`SMALLEST` and are not mostly covered.
    """
    return _objects(sample) & (covered(sample.boxes, place) <= MOST_COVERED)


@dataclass(frozen=True)
class Targets:
    """What each image should give for a goal.

    Attributes:
        goal: with ``misclassify`` and ``untargeted``, the image's own free boxes; with
            ``false-detection`` the patch's rectangle, and nothing else.
        target_class: the patch's label for ``false-detection``.
    """

    goal: Goal
    target_class: int | None = None

    def of(self, sample: BoxSample, place: Placement) -> Target:
        """y_adv of one image, with n >= 0 boxes."""
        if self.target_class is not None:
            boxes = np.array([place.corners], np.float32)
            labels = np.array([self.target_class], np.int64)
        else:
            free = free_boxes(sample, place)
            boxes, labels = sample.boxes[free], sample.labels[free]
        return {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)}

    def require_some(self, samples: Sequence[BoxSample]) -> None:
        """Refuse images that can give no target.

        Raises:
            DatasetError: there is none, or none with a box where the goal needs one.
        """
        if not any(self.target_class is not None or _objects(sample).any() for sample in samples):
            raise DatasetError(
                "There is no image to craft on, or none with a box that counts.",
                fix="Give a folder of images with objects.",
            )


def _objects(sample: BoxSample) -> NDArray[np.bool_]:
    large = (sample.boxes[:, 2:] - sample.boxes[:, :2] >= SMALLEST).all(axis=1)
    return large & ~sample.crowd

"""Whether a patch works on a detector: the objects that are still found, and the defense's flag."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import FiniteFloat
from torch import Tensor
from torchvision.ops import box_iou

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.pairs import flagged_share, pairs
from zmask_export.attack.targets import free_boxes
from zmask_export.data.coco import BoxSample
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import Spec

IOU = 0.5
"""A detection that overlaps a box by this or more is of its object."""
SCORE = 0.5
"""Detections that are less sure do not count."""


class DetectionEffect(Spec):
    """What a patch does, see ``pairs``.

    Attributes:
        found_clean: share of the objects that are found without the patch: those that count and that the
            patch does not mostly cover, see ``free_boxes``. None where there is no such object.
        found_patched: the same objects, with it.
        invented: for a false detection, share of the images in which the patch is found as an object of
            the class that was asked for; None otherwise.
        flagged: share of the patched images that the defense flags; None where there was none.
    """

    found_clean: FiniteFloat | None
    found_patched: FiniteFloat | None
    invented: FiniteFloat | None = None
    flagged: FiniteFloat | None = None


def measure_detector(
    bare: BareNetwork,
    samples: Sequence[BoxSample],
    patch: Tensor,
    *,
    target_class: int | None = None,
    calibration: Calibration | None = None,
    seed: int = 0,
    on_image: Callable[[int], None] | None = None,
) -> DetectionEffect:
    """Run every image with and without a patch.

    Args:
        bare, patch, calibration, seed, on_image: see ``pairs``.
        samples: images with boxes, at least one.
        target_class: what a false detection shall take the patch for.

    Raises:
        PatchError: the patch is larger than the images.
    """
    found, total, invented = [0, 0], 0, 0
    flags = []
    for pair in pairs(bare, samples, patch, calibration=calibration, seed=seed, on_image=on_image):
        free = free_boxes(pair.sample, pair.place)
        boxes = torch.from_numpy(pair.sample.boxes[free])
        labels = torch.from_numpy(pair.sample.labels[free])
        for k, outputs in enumerate((pair.clean, pair.patched)):
            found[k] += found_boxes(boxes, labels, outputs)
        total += len(boxes)
        if target_class is not None:
            place = torch.tensor([pair.place.corners], dtype=torch.float32)
            invented += found_boxes(place, torch.tensor([target_class]), pair.patched)
        flags.append(pair.flag)
    return DetectionEffect(
        found_clean=found[0] / total if total else None,
        found_patched=found[1] / total if total else None,
        invented=None if target_class is None else invented / len(samples),
        flagged=flagged_share(flags),
    )


def found_boxes(boxes: Tensor, labels: Tensor, outputs: dict[str, Tensor]) -> int:
    """How many objects are found: each detection, the surest first, finds at most one of its class.

    Args:
        boxes: (n, 4), x1 y1 x2 y2.
        labels: int64 (n,).
        outputs: ``boxes`` (1, K, 4), ``scores`` and ``labels`` (1, K), ``count`` (1,); scores descend.
    """
    if not len(boxes):
        return 0
    count = int(outputs["count"][0])
    sure = outputs["scores"][0, :count] >= SCORE
    overlap = box_iou(boxes, outputs["boxes"][0, :count][sure])
    overlap[labels[:, None] != outputs["labels"][0, :count][sure]] = 0
    missing = torch.ones(len(boxes), dtype=torch.bool)
    for column in overlap.T:
        best = (column * missing).argmax()
        missing[best] &= column[best] < IOU
    return int((~missing).sum())

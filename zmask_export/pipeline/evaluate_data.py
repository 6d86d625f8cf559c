"""What evaluate takes from a data set: labelled images of the network's task, size and classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zmask_export.artifacts.files import sha256_file
from zmask_export.artifacts.manifest import Manifest
from zmask_export.data.layouts import Boxes, open_boxes
from zmask_export.data.segmentation import SegmentationFolder, require_classes
from zmask_export.errors import DatasetError, UsageError
from zmask_export.evaluate.objects import ObjectDetection
from zmask_export.evaluate.segmentation import Segmentation
from zmask_export.evaluate.task import Samples, Task
from zmask_export.spec import DETECTION_OUTPUTS, Size
from zmask_export.spec import Task as TaskName


@dataclass(frozen=True)
class LabelledData:
    """A data set's split, ready to be measured on.

    Attributes:
        samples: its images, each read when it is asked for; at least one.
        task: judges answers to them.
    """

    samples: Samples[Any]
    task: Task[Any, Any]

    def fingerprint(self) -> str:
        """sha256 over names and contents of images and labels; boxes are read for it."""
        if isinstance(self.samples, SegmentationFolder):
            return digest(path for pair in self.samples.pairs for path in pair)
        total = hashlib.sha256()
        for index in range(len(self.samples)):
            sample = self.samples[index]
            total.update(f"{sample.path.name} {sample.image.shape} {len(sample.labels)}\n".encode())
            for values in (sample.image, sample.boxes, sample.labels, sample.crowd):
                total.update(values.tobytes())
        return total.hexdigest()


def open_labelled(
    root: Path,
    split: str,
    *,
    task: TaskName,
    classes: int,
    size: Size,
    limit: int | None = None,
) -> LabelledData:
    """Open a split.

    Args:
        root: the data set's folder.
        split: which.
        task: of the network.
        classes: how many the network has, a detector's background counted.
        size: (H, W) that images and labels are resized to.
        limit: at most this many images, spread evenly.

    Raises:
        DatasetError: no labels for the task, other classes than the network's, or no image.
        UsageError: ``limit`` is under 1, or the network has no task that labels belong to.
    """
    if task == "other":
        raise UsageError(
            "The network gives neither logits nor boxes, so no data set says how good it is.",
            fix="Name its class scores when building: --outputs logits=OUTPUT.",
        )
    data = (_boxes if task == "detection" else _pixels)(root, split, classes, size, limit)
    if not len(data.samples):
        raise DatasetError(f"The split {split} of {root} is empty.", fix="Name another split.")
    return data


def task_of(manifest: Manifest) -> TaskName:
    """What a bundle's network predicts."""
    outputs = {tensor.name for tensor in manifest.outputs}
    if outputs.issuperset(DETECTION_OUTPUTS):
        return "detection"
    return "segmentation" if "logits" in outputs else "other"


def digest(paths: Iterable[Path]) -> str:
    """sha256 over names and contents of files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\n{sha256_file(path)}\n".encode())
    return total.hexdigest()


def _pixels(root: Path, split: str, classes: int, size: Size, limit: int | None) -> LabelledData:
    folder = SegmentationFolder(root, split, size=size, limit=limit)
    require_classes(folder, classes)
    return LabelledData(folder, Segmentation(classes))


def _boxes(root: Path, split: str, classes: int, size: Size, limit: int | None) -> LabelledData:
    boxes = open_boxes(root, split, size=size, limit=limit)
    _require_labels(boxes, classes)
    return LabelledData(boxes, ObjectDetection())


def _require_labels(boxes: Boxes, classes: int) -> None:
    """Refuse boxes whose labels are not those that a detector gives.

    COCO leaves out some numbers, so the last label decides, not how many there are.
    """
    first, last = min(boxes.categories, default=0), max(boxes.categories, default=0)
    if first < 1 or last != classes - 1:
        raise DatasetError(
            f"The data set's boxes have the labels {first} to {last}, and the detector's 1 to "
            f"{classes - 1}.",
            fix="Use the data set that the detector was trained for.",
        )

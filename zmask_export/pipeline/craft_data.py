"""What craft takes from a data set and a network: samples of the network's kind, sizes, classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zmask_export.data.coco import BoxSample
from zmask_export.data.layouts import open_boxes
from zmask_export.data.segmentation import Sample, SegmentationFolder, require_classes
from zmask_export.errors import DatasetError, UsageError
from zmask_export.pipeline.network import OpenNetwork
from zmask_export.pipeline.probe import PATCH_SHARE
from zmask_export.spec import Size

LARGE = PATCH_SHARE
"""Side of an L patch as a share of the image's (M is 0.20, S is 0.15)."""


@dataclass(frozen=True)
class CraftData:
    """Images to craft on, or to measure a random patch on.

    Attributes:
        root: data set in CamVid or Cityscapes layout; for a detector also COCO or APRICOT.
        split: which split.
        limit: at most this many images, spread over the split.
    """

    root: Path
    split: str = "train"
    limit: int | None = 100

    def load(self, opened: OpenNetwork) -> Sequence[Sample | BoxSample]:
        """All samples at the network's input size: with boxes for a detector, else with label maps.

        Raises:
            DatasetError, ImageError: they cannot be used, or have other classes than the network.
        """
        size = opened.input_size
        if opened.entry.task == "detection":
            boxes = open_boxes(self.root, self.split, size=size, limit=self.limit)
            _require_labels(boxes.categories, opened.classes)
            return list(boxes)
        folder = SegmentationFolder(self.root, self.split, size=size, limit=self.limit)
        require_classes(folder, opened.classes)
        return list(folder)


def _require_labels(categories: dict[int, str], classes: int) -> None:
    strange = [label for label in categories if not 1 <= label < classes]
    if strange:
        raise DatasetError(
            f"The data set has the class {strange[0]} ({categories[strange[0]]}), and the detector 1 to "
            f"{classes - 1}.",
            fix="Use the data set that the detector was trained for.",
        )


def patch_size(opened: OpenNetwork, share: float) -> Size:
    """(h, w) of a patch whose sides are ``share`` of the image's.

    Raises:
        UsageError: the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(f"A share of {share} is no patch.", fix="Give --share in (0, 1].")
    h, w = opened.input_size
    return max(1, round(share * h)), max(1, round(share * w))


def class_index(opened: OpenNetwork, name: str) -> int:
    """The label of a detector's class by its name or number.

    Raises:
        UsageError: no such class, or the background.
    """
    names = opened.class_names
    index = int(name) if name.isdecimal() else names.index(name) if name in names else 0
    if not 1 <= index < opened.classes:
        known = ", ".join(f"{k} {known}" for k, known in enumerate(names[:12]) if k)
        raise UsageError(
            f"{opened.entry.name} finds no class {name!r}.",
            fix=f"Give one of: {known}{', ...' if len(names) > 12 else ''}.",
        )
    return index

"""Which public data set lies in a folder, told by its layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from zmask_export.data import images
from zmask_export.data.apricot import ApricotFolder
from zmask_export.data.coco import BoxFolder, BoxSample, CocoFolder
from zmask_export.data.regions import RegionFolder
from zmask_export.data.segmentation import SegmentationFolder
from zmask_export.errors import DatasetError
from zmask_export.spec import Size

Layout = Literal["CamVid", "Cityscapes", "COCO", "APRICOT"]

_LABELS: dict[Layout, str] = {
    "CamVid": "<split>/images and <split>/labels",
    "Cityscapes": "leftImg8bit/<split> and gtFine/<split>",
}
_BOXES: dict[Layout, str] = {
    "COCO": "annotations/instances_<split>.json and <split>",
    "APRICOT": "Annotations/apricot_<split>_all_annotations.json and Images/<split>",
}


class Boxes(Protocol):
    """Images with boxes.

    Attributes:
        categories: label to name.
        paths: the image files.
    """

    categories: dict[int, str]
    paths: list[Path]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> BoxSample:
        """Read one image."""
        ...

    def __iter__(self) -> Iterator[BoxSample]: ...


class ResizedBoxes:
    """A data set whose images (bilinear) and boxes are stretched to one size.

    Args:
        folder: the data set.
        size: (H, W).

    Attributes:
        categories, paths: those of the data set.
    """

    def __init__(self, folder: BoxFolder, size: Size) -> None:
        self._folder, self._size = folder, size
        self.categories, self.paths = folder.categories, folder.paths

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> BoxSample:
        """Read one image.

        Raises:
            ImageError, DatasetError: see :class:`BoxFolder`; also an image of quite another shape.
        """
        sample = self._folder[index]
        h, w = sample.image.shape[:2]
        factor = np.tile(np.array([self._size[1] / w, self._size[0] / h], np.float32), 2)
        image = images.resize(sample.image, self._size, name=str(sample.path))
        boxes, patches = sample.boxes * factor, sample.patches * factor
        return replace(sample, image=image, boxes=boxes, patches=patches)

    def __iter__(self) -> Iterator[BoxSample]:
        return (self[i] for i in range(len(self)))


def recognise(root: Path) -> Layout | None:
    """The layout of a data set's folder, None where it is none that is known.

    Args:
        root: the folder; it need not exist.
    """
    if (root / "leftImg8bit").is_dir():
        return "Cityscapes"
    if any((root / "Annotations").glob("apricot_*.json")):
        return "APRICOT"
    if any((root / "annotations").glob("instances_*.json")):
        return "COCO"
    if any((path.parent / "labels").is_dir() for path in root.glob("*/images")):
        return "CamVid"
    return None


def open_segmentation(
    root: Path, split: str, *, size: Size | None = None, limit: int | None = None
) -> SegmentationFolder:
    """Images with label maps, in CamVid's or Cityscapes' layout.

    Args:
        root: the data set's folder.
        split: "train", "val" or another split's name.
        size: (H, W) that images and labels are resized to; None keeps theirs.
        limit: at most this many images, spread evenly.

    Raises:
        DatasetError: another layout, or see :class:`SegmentationFolder`.
        UsageError: ``limit`` is under 1.
    """
    _require(root, _LABELS, "label maps")
    return SegmentationFolder(root, split, size=size, limit=limit)


def open_boxes(
    root: Path, split: str, *, size: Size | None = None, limit: int | None = None
) -> Boxes:
    """Images with boxes, in COCO's or APRICOT's layout, or around the regions of label maps.

    Args:
        root: the data set's folder.
        split: such as "val2017" or "dev"; "val" where label maps lie.
        size: (H, W) that images and boxes are resized to; None keeps theirs.
        limit: at most this many images, spread evenly.

    Raises:
        DatasetError: no known layout, or see :class:`~zmask_export.data.coco.BoxFolder` and
            :class:`~zmask_export.data.regions.RegionFolder`.
        UsageError: ``limit`` is under 1.
    """
    layout = _require(root, _BOXES | _LABELS, "boxes")
    if layout in _LABELS:
        return RegionFolder(root, split, size=size, limit=limit)
    kind = ApricotFolder if layout == "APRICOT" else CocoFolder
    folder = kind(root, split, limit=limit)
    return folder if size is None else ResizedBoxes(folder, size)


def _require(root: Path, layouts: dict[Layout, str], what: str) -> Layout:
    layout = recognise(root)
    if layout in layouts:
        return layout
    known = "; ".join(f"{name}: {form}" for name, form in layouts.items())
    raise DatasetError(
        f"{root} is no folder."
        if not root.is_dir()
        else f"{root} is in no known layout."
        if layout is None
        else f"{root} is in {layout}'s layout, which has no {what}.",
        fix=f"Point to one of these ({known}), as it lies on disk after the official download.",
    )

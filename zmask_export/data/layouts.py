"""Which public data set lies in a folder, told by its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from zmask_export.data.apricot import ApricotFolder
from zmask_export.data.coco import BoxFolder, CocoFolder
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


def open_boxes(root: Path, split: str, *, limit: int | None = None) -> BoxFolder:
    """Images with boxes, in COCO's or APRICOT's layout.

    Args:
        root: the data set's folder.
        split: such as "val2017" or "dev".
        limit: at most this many images, spread evenly.

    Raises:
        DatasetError: another layout, or see :class:`~zmask_export.data.coco.BoxFolder`.
        UsageError: ``limit`` is under 1.
    """
    folder = ApricotFolder if _require(root, _BOXES, "boxes") == "APRICOT" else CocoFolder
    return folder(root, split, limit=limit)


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

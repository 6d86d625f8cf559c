"""Images with label maps, as the public data sets lie on disk.

Two layouts are read:

- CamVid: ``root/<split>/images/*.jpg`` and ``root/<split>/labels/*.png``, one class index a pixel,
  11 = unlabelled.
- Cityscapes: ``root/leftImg8bit/<split>/<city>/*_leftImg8bit.png`` and
  ``root/gtFine/<split>/<city>/*_gtFine_labelTrainIds.png``, 255 = unlabelled. Where only
  ``*_labelIds.png`` are there, they are mapped to train ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zmask_export.data import images
from zmask_export.data.pillow import DAMAGED, no_bombs
from zmask_export.data.sampling import spread
from zmask_export.errors import DatasetError

IGNORE = 255
"""Label of pixels that count neither in losses nor in metrics, whatever the data set calls them."""

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree",
    "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
# Cityscapes label id of each train id, from the data set's public label table.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# Label in the file to class index. 11 is CamVid's "unlabelled"; ids of Cityscapes end at 33.
_CAMVID = {i: i for i in range(len(CAMVID_CLASSES))} | {len(CAMVID_CLASSES): IGNORE, IGNORE: IGNORE}
_CITYSCAPES_BY_TRAIN_ID = {i: i for i in range(len(CITYSCAPES_CLASSES))} | {IGNORE: IGNORE}
_CITYSCAPES_BY_ID = dict.fromkeys((*range(34), IGNORE), IGNORE) | {
    label: train for train, label in enumerate(_CITYSCAPES_IDS)
}


@dataclass(frozen=True)
class Sample:
    """An image (H, W, 3) uint8 and its labels (H, W) uint8 with :data:`IGNORE` for unlabelled."""

    path: Path
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class SegmentationFolder:
    """One split of a data set in CamVid or Cityscapes layout.

    Args:
        root: the data set's folder.
        split: "train", "val" or another split's name.
        size: (H, W) that images (bilinear) and labels (nearest) are resized to; None keeps theirs.
        limit: at most this many pairs, spread evenly.

    Raises:
        DatasetError: neither layout is there, or an image has no label map (named).
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        size: tuple[int, int] | None = None,
        limit: int | None = None,
    ) -> None:
        self.size = size
        self.classes: tuple[str, ...]
        if (root / "leftImg8bit").is_dir():
            self.classes, self._table = CITYSCAPES_CLASSES, None
            self.pairs = _cityscapes_pairs(root, split)
        elif (root / split / "images").is_dir():
            self.classes = CAMVID_CLASSES
            self._table = _CAMVID
            self.pairs = _camvid_pairs(root / split)
        else:
            raise DatasetError(
                f"{root} has neither CamVid's layout ({split}/images) nor Cityscapes' (leftImg8bit).",
                fix="Point to the folder as it lies on disk after the official download.",
            )
        picked = spread([image for image, _ in self.pairs], limit)
        chosen = set(picked)
        self.pairs = [pair for pair in self.pairs if pair[0] in chosen]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        path, label_path = self.pairs[index]
        image = images.read(path)
        labels = _read_labels(label_path)
        table = self._table
        if table is None:
            by_id = label_path.name.endswith("_labelIds.png")
            table = _CITYSCAPES_BY_ID if by_id else _CITYSCAPES_BY_TRAIN_ID
        labels = _translate(labels, table, label_path)
        if labels.shape != image.shape[:2]:
            raise DatasetError(
                f"{label_path} is {labels.shape[1]} x {labels.shape[0]} and its image "
                f"{image.shape[1]} x {image.shape[0]}.",
                fix="Each label map must have the size of its image.",
            )
        if self.size is not None:
            image = images.resize(image, self.size, name=str(path))
            h, w = self.size
            shrunk = Image.fromarray(labels).resize((w, h), Image.Resampling.NEAREST)
            labels = np.asarray(shrunk)
        return Sample(path, image, labels)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


def split_images(root: Path, split: str) -> Path:
    """The folder that holds a split's images, in CamVid or Cityscapes layout; it need not exist."""
    cityscapes = root / "leftImg8bit"
    return cityscapes / split if cityscapes.is_dir() else root / split / "images"


def require_classes(folder: SegmentationFolder, classes: int) -> None:
    """Refuse a data set whose classes are not the network's.

    Raises:
        DatasetError: another number of classes.
    """
    if len(folder.classes) != classes:
        raise DatasetError(
            f"The data set has {len(folder.classes)} classes and the network {classes}.",
            fix="Use the data set that the network was trained for.",
        )


def _translate(labels: NDArray[np.uint8], table: dict[int, int], path: Path) -> NDArray[np.uint8]:
    """Labels as class indices.

    Raises:
        DatasetError: a label that is no class of the data set and not its "unlabelled".
    """
    found = np.unique(labels)
    foreign = [int(label) for label in found if int(label) not in table]
    if foreign:
        raise DatasetError(
            f"{path} holds the label {foreign[0]}, which is no class of this data set.",
            fix="Give label maps in the data set's own encoding, one class index a pixel.",
        )
    lookup = np.zeros(256, np.uint8)
    for label in found:
        lookup[label] = table[int(label)]
    return lookup[labels]


def _read_labels(path: Path) -> NDArray[np.uint8]:
    try:
        with no_bombs(), Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise DatasetError(
                    f"{path} has mode {image.mode}, not one class index a pixel.",
                    fix="Give single-channel 8-bit label maps.",
                )
            return np.asarray(image)
    except DAMAGED as exc:
        raise DatasetError(
            f"The label map {path} cannot be read.", fix="Copy the data set again."
        ) from exc


def _camvid_pairs(split: Path) -> list[tuple[Path, Path]]:
    pairs = []
    for image in images.list_images(split / "images"):
        labels = split / "labels" / f"{image.stem}.png"
        pairs.append((image, _existing(labels, image)))
    return pairs


def _cityscapes_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    pairs = []
    for image in images.list_images(root / "leftImg8bit" / split):
        stem = image.name.removesuffix("_leftImg8bit.png")
        folder = root / "gtFine" / split / image.parent.name
        ready = folder / f"{stem}_gtFine_labelTrainIds.png"
        labels = ready if ready.exists() else folder / f"{stem}_gtFine_labelIds.png"
        pairs.append((image, _existing(labels, image)))
    return pairs


def _existing(labels: Path, image: Path) -> Path:
    if not labels.is_file():
        raise DatasetError(
            f"{image} has no label map ({labels} is missing).", fix="Copy the data set again."
        )
    return labels

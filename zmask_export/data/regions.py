"""Boxes from label maps: every connected region of an object's class is one object.

CamVid and Cityscapes label pixels, not objects. A region is connected over edges and corners
(8-connectivity), so objects of one class that touch in the picture count as one, and one that a pole
cuts in two counts as two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from zmask_export.data.coco import BoxSample
from zmask_export.data.segmentation import SegmentationFolder
from zmask_export.errors import ShapeError
from zmask_export.spec import Size

OBJECTS = {1: "car", 2: "pedestrian", 3: "bicyclist"}
"""Label to name; a detector counts background as 0."""
MIN_AREA = 8
"""Smallest region in pixels; what is smaller is a slip of the labels, not an object."""
MIN_SIDE = 16
"""Objects whose box has a smaller side, as the root of its area in pixels, need not be found."""

# What the data sets call the objects.
_LABELS = {"car": 1, "pedestrian": 2, "person": 2, "bicyclist": 3, "rider": 3}
_TOUCHING = np.ones((3, 3), np.int64)


def find_boxes(
    labels: NDArray[np.uint8], objects: Mapping[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A box around each connected region.

    Args:
        labels: uint8 (H, W), a class index a pixel.
        objects: class index to the label that its boxes get; other classes are background.

    Returns:
        boxes float32 (n, 4), x1 y1 x2 y2 around the region's pixels (x2 and y2 exclusive), and labels int64
        (n,); by class in the order of ``objects``, regions from top to bottom.

    Raises:
        ShapeError: ``labels`` is no (H, W) map.
    """
    if labels.ndim != 2:
        raise ShapeError(
            f"Regions are found in a label map (H, W), not in {labels.shape}.",
            fix="Give one label map.",
        )
    boxes, found = [], []
    for index, label in objects.items():
        regions, _ = ndimage.label(labels == index, _TOUCHING)
        areas = np.bincount(regions.ravel())[1:]
        for area, (rows, columns) in zip(areas, ndimage.find_objects(regions), strict=True):
            if area >= MIN_AREA:
                boxes.append((columns.start, rows.start, columns.stop, rows.stop))
                found.append(label)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(found, np.int64)


def sides(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root of each box's area in pixels, (n,) of (n, 4)."""
    return np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


class RegionFolder:
    """One split in CamVid or Cityscapes layout, its cars, pedestrians and bicyclists as boxes.

    Boxes with a side under :data:`MIN_SIDE` are marked ``crowd``, so that metrics pass over them.

    Args:
        root: the data set's folder.
        split: "train", "val" or another split's name.
        size: (H, W) that images and label maps are resized to before boxes are drawn; None keeps theirs.
        limit: at most this many images, spread evenly.

    Attributes:
        categories: label to name.
        objects: class index of the label maps to label.
        paths: the image files.

    Raises:
        DatasetError: see :class:`~zmask_export.data.segmentation.SegmentationFolder`.
        UsageError: ``limit`` is under 1.
    """

    def __init__(
        self, root: Path, split: str, *, size: Size | None = None, limit: int | None = None
    ) -> None:
        self._folder = SegmentationFolder(root, split, size=size, limit=limit)
        self.categories = dict(OBJECTS)
        self.paths = [image for image, _ in self._folder.pairs]
        classes = self._folder.classes
        self.objects = {classes.index(name): _LABELS[name] for name in _LABELS if name in classes}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> BoxSample:
        """Read one image and draw its boxes.

        Raises:
            ImageError, DatasetError: a file cannot be used; it is named.
        """
        sample = self._folder[index]
        boxes, labels = find_boxes(sample.labels, self.objects)
        crowd = sides(boxes) < MIN_SIDE
        return BoxSample(
            sample.path, sample.image, boxes, labels, crowd, patches=np.zeros((0, 4), np.float32)
        )

    def __iter__(self) -> Iterator[BoxSample]:
        return (self[i] for i in range(len(self)))

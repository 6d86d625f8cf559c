"""Images with boxes, as COCO lies on disk after the official download.

``root/annotations/instances_<split>.json`` and ``root/<split>/*.jpg``. The annotation file is checked
field by field; what is read of it are names, sizes, boxes, categories and crowd marks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zmask_export.data import images
from zmask_export.data.sampling import spread
from zmask_export.errors import DatasetError
from zmask_export.spec import Side, explain

MAX_BYTES = 1 << 30
"""Largest annotation file; COCO's own largest, instances_train2017.json, has 0.47 GB."""

_Id = Annotated[int, Field(ge=0, lt=1 << 63)]
_Pixels = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]


class _Part(BaseModel):
    """A part of an annotation file. Fields that are not read may hold anything."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Record(_Part):
    id: _Id


class _Category(_Record):
    name: str


class _Image(_Record):
    file_name: Annotated[str, Field(min_length=1)]
    width: Side
    height: Side


class _Annotation(_Record):
    image_id: _Id
    category_id: _Id
    bbox: tuple[_Pixels, _Pixels, _Pixels, _Pixels]
    iscrowd: Annotated[bool, Field(strict=False)] = False


class _Annotations(_Part):
    categories: tuple[_Category, ...]
    images: tuple[_Image, ...]
    annotations: tuple[_Annotation, ...]


_RecordT = TypeVar("_RecordT", bound=_Record)


@dataclass(frozen=True)
class BoxSample:
    """An image and the boxes in it.

    Attributes:
        path: the image's file.
        image: uint8 (H, W, 3), RGB.
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels, inside the image and never empty.
        labels: int64 (n,), category ids as the file has them.
        crowd: bool (n,); a box around many objects, which detectors need not find.
        patches: float32 (p, 4), boxes of adversarial patches, where the data set marks them.
    """

    path: Path
    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    patches: NDArray[np.float32]


class BoxFolder:
    """Images of one folder with the boxes of one annotation file in COCO's format.

    Images come in the order of their ids. Boxes are clipped to their image; one of which nothing is
    left (no width, no height, or outside) does not count. An image without any box is kept.

    Args:
        folder: the images.
        annotations: the JSON file.
        limit: at most this many images, spread evenly over the file's.
        patch_category: category id whose boxes are adversarial patches, not objects.

    Attributes:
        categories: category id to name, patches left out.
        paths: the image files.

    Raises:
        DatasetError: the annotation file is missing, damaged, contradicts itself or is no such file;
            an image is missing, or one of the folder has no entry. The first culprit is named.
        UsageError: ``limit`` is under 1.
    """

    def __init__(
        self,
        folder: Path,
        annotations: Path,
        *,
        limit: int | None = None,
        patch_category: int | None = None,
    ) -> None:
        content = _read(annotations)
        names = _unique(annotations, "category", content.categories)
        entries = _unique(annotations, "image", content.images)
        _unique(annotations, "annotation", content.annotations)
        if patch_category is not None and patch_category not in names:
            raise DatasetError(
                f"{annotations} has no category {patch_category}, which stands for patches.",
                fix="Point to the folder as it lies on disk after the official download.",
            )
        self._patch_category = patch_category
        self.categories = {
            number: category.name
            for number, category in sorted(names.items())
            if number != patch_category
        }
        for box in content.annotations:
            if box.image_id not in entries or box.category_id not in names:
                what = "image" if box.image_id not in entries else "category"
                number = box.image_id if what == "image" else box.category_id
                raise DatasetError(
                    f"The annotation {box.id} of {annotations} is for the {what} {number}, "
                    "which the file does not list.",
                    fix="Copy the annotations again.",
                )
        files = {_inside(folder, entry, annotations): entry for _, entry in sorted(entries.items())}
        if len(files) != len(entries):
            raise DatasetError(
                f"{annotations} lists an image file twice.", fix="Copy the annotations again."
            )
        _require_listed(folder, files.keys(), annotations)
        self.paths = spread(list(files), limit)
        for path in self.paths:
            # Unlike Path.is_file, this is False for a name that no file can have.
            if not os.path.isfile(path):
                raise DatasetError(
                    f"The image {path} is missing; {annotations} lists it.",
                    fix="Copy the data set again.",
                )
        self._entries = [files[path] for path in self.paths]
        self._boxes: dict[int, list[_Annotation]] = {entry.id: [] for entry in self._entries}
        for box in content.annotations:
            if box.image_id in self._boxes:
                self._boxes[box.image_id].append(box)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> BoxSample:
        """Read one image.

        Raises:
            ImageError: the file is no 8-bit RGB image.
            DatasetError: it has not the size that the annotations say.
        """
        path, entry = self.paths[index], self._entries[index]
        image = images.read(path)
        h, w = image.shape[:2]
        if (h, w) != (entry.height, entry.width):
            raise DatasetError(
                f"{path} is {w} x {h}, and {entry.width} x {entry.height} in the annotations.",
                fix="Give the images in the size that they were annotated in.",
            )
        found = self._boxes[entry.id]
        boxes = _corners(found, w, h)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        labels = np.array([box.category_id for box in found], np.int64)
        crowd = np.array([box.iscrowd for box in found], np.bool_)
        patch = kept & (labels == self._patch_category)
        kept &= ~patch
        return BoxSample(path, image, boxes[kept], labels[kept], crowd[kept], boxes[patch])

    def __iter__(self) -> Iterator[BoxSample]:
        return (self[i] for i in range(len(self)))


class CocoFolder(BoxFolder):
    """One split of COCO, such as "val2017".

    Args:
        root: the folder with ``annotations/`` and the splits' images.
        split: the split's name.
        limit: at most this many images, spread evenly.

    Raises:
        DatasetError, UsageError: see :class:`BoxFolder`.
    """

    def __init__(self, root: Path, split: str, *, limit: int | None = None) -> None:
        file = root / "annotations" / f"instances_{split}.json"
        super().__init__(root / split, file, limit=limit)


def _read(path: Path) -> _Annotations:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(
                f"{path} has more than {MAX_BYTES >> 20} MiB.",
                fix="Give one split's annotations, without others' results.",
            )
        data = path.read_bytes()
    except FileNotFoundError as exc:
        others = sorted(other.name for other in path.parent.glob("*.json"))
        raise DatasetError(
            f"The annotations {path} are missing.",
            fix=f"Choose another split; there are: {', '.join(others)}."
            if others
            else "Point to the folder as it lies on disk after the official download.",
        ) from exc
    except OSError as exc:
        raise DatasetError(
            f"The annotations {path} cannot be read ({exc.strerror}).",
            fix="Check that it is a file that may be read.",
        ) from exc
    try:
        # Nesting without end is an error of the parser, which counts levels.
        return _Annotations.model_validate_json(data)
    except ValidationError as exc:
        raise DatasetError(
            f"{path} is no annotation file in COCO's format: {explain(exc)}.",
            fix="Copy the annotations again.",
        ) from exc


def _unique(path: Path, what: str, records: Iterable[_RecordT]) -> dict[int, _RecordT]:
    found: dict[int, _RecordT] = {}
    for record in records:
        if found.setdefault(record.id, record) is not record:
            raise DatasetError(
                f"{path} lists the {what} {record.id} twice.", fix="Copy the annotations again."
            )
    return found


def _inside(folder: Path, entry: _Image, annotations: Path) -> Path:
    name = PurePosixPath(entry.file_name)
    if name.is_absolute() or ".." in name.parts:
        raise DatasetError(
            f"{annotations} names the image {entry.file_name!r}, which is not inside {folder}.",
            fix="Copy the annotations again.",
        )
    return folder / name


def _require_listed(folder: Path, listed: Iterable[Path], annotations: Path) -> None:
    there = {p for p in images.list_images(folder) if p.suffix.lower() in images.SUFFIXES}
    strangers = there.difference(listed)
    if strangers:
        raise DatasetError(
            f"The image {min(strangers)} has no entry in {annotations} "
            f"({len(strangers)} such images).",
            fix="Give the annotations of these images, or remove the images.",
        )


def _corners(found: list[_Annotation], width: int, height: int) -> NDArray[np.float32]:
    """Boxes x, y, w, h as x1, y1, x2, y2 inside the image, (n, 4)."""
    boxes = np.array([box.bbox for box in found], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    limit = np.array([width, height, width, height])
    return np.clip(boxes, 0, limit).astype(np.float32)

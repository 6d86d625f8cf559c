"""Small data sets with boxes, laid out as the official downloads are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (24, 32)
PERSON, CAR, PATCH = 1, 3, 12
CATEGORIES = [
    {"id": CAR, "name": "car", "supercategory": "vehicle"},
    {"id": PERSON, "name": "person", "supercategory": "person"},
]
BOXES = {
    # Image id to (category, x y w h, crowd).
    42: [(PERSON, [1, 2, 10, 4], 0), (CAR, [3.5, 0.25, 20, 12.5], 1)],
    7: [],
    9: [(CAR, [0, 0, 32, 24], 0)],
    300: [(PERSON, [5, 5, 1, 1], 0)],
}


def name_of(image: int) -> str:
    """The file name of an image id, as COCO forms it."""
    return f"{image:012d}.jpg"


def content(boxes: dict[int, list[Any]] | None = None) -> dict[str, Any]:
    """An annotation file: ``boxes`` in images of one size, with the fields that nobody reads."""
    boxes = BOXES if boxes is None else boxes
    flat = [(image, *box) for image, found in boxes.items() for box in found]
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": i, "file_name": name_of(i), "height": SIZE[0], "width": SIZE[1], "license": 3}
            for i in boxes
        ],
        "annotations": [
            {
                "id": 1000 + index,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "iscrowd": crowd,
                "area": box[2] * box[3],
                "segmentation": {"counts": [1, 2], "size": [3, 4]},
            }
            for index, (image, category, box, crowd) in enumerate(flat)
        ],
        "categories": CATEGORIES,
    }


def save_images(folder: Path, images: dict[int, list[Any]]) -> None:
    """A picture of noise for every image id."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        pixels = np.random.default_rng(image).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name_of(image))


def save_json(path: Path, record: Any) -> None:
    """Write an annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def make_coco(root: Path, record: dict[str, Any] | None = None) -> Path:
    """A split "val2017"."""
    save_images(root / "val2017", BOXES)
    save_json(root / "annotations" / "instances_val2017.json", record or content())
    return root


APRICOT_BOXES = {
    42: [(PATCH, [1, 2, 10, 4], 0), (CAR, [3.5, 0.25, 20, 12.5], 0), (PATCH, [5, 5, 0, 3], 0)],
    9: [(CAR, [0, 0, 32, 24], 0), (PATCH, [20, 10, 40, 40], 0), (PATCH, [2, 3, 4, 5], 0)],
}


def make_apricot(root: Path) -> Path:
    """A split "dev"; its annotations carry what APRICOT says of its patches."""
    record = content(APRICOT_BOXES)
    record["categories"] = [
        *CATEGORIES,
        {"id": PATCH, "name": "adversarial patch", "supercategory": "adversarial"},
    ]
    record["patches"] = [{"id": 3, "name": "frcnn_person", "adv_target": 1, "is_circle": True}]
    for box in record["annotations"]:
        if box["category_id"] == PATCH:
            box |= {"patch_id": 3, "angle": [0, 1, 0], "is_warped": False}
    save_images(root / "Images" / "dev", APRICOT_BOXES)
    save_json(root / "Annotations" / "apricot_dev_all_annotations.json", record)
    return root

"""Pictures of results: prediction colours, boxes, covered pixels."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from zmask_export.runtime.detections import Detections
from zmask_export.runtime.protected import Result

Picture = NDArray[np.uint8]

_STREET = {
    "sky": (70, 130, 180), "building": (70, 70, 70), "pole": (153, 153, 153),
    "road": (128, 64, 128), "pavement": (244, 35, 232), "sidewalk": (244, 35, 232),
    "tree": (107, 142, 35), "vegetation": (107, 142, 35), "sign": (220, 220, 0),
    "traffic sign": (220, 220, 0), "fence": (190, 153, 153), "car": (0, 0, 142),
    "pedestrian": (220, 20, 60), "person": (220, 20, 60), "bicyclist": (119, 11, 32),
    "rider": (255, 0, 0), "bicycle": (119, 11, 32),
}  # fmt: skip
"""Cityscapes' customary colours, by class name."""

_COVERED = np.array((255, 0, 255), np.float32)


def palette(classes: tuple[str, ...]) -> Picture:
    """One RGB colour a class, uint8 (C, 3): the customary one, or evenly spaced hues."""
    colours = []
    for index, name in enumerate(classes):
        hue = colorsys.hsv_to_rgb(index / len(classes), 0.75, 0.9)
        colours.append(_STREET.get(name, tuple(round(255 * v) for v in hue)))
    return np.array(colours, np.uint8)


def colour_prediction(prediction: Picture, classes: tuple[str, ...]) -> Picture:
    """A prediction (H, W) in class colours, uint8 (H, W, 3)."""
    return palette(classes)[prediction]


def overlay(image: Picture, result: Result, classes: tuple[str, ...]) -> Picture:
    """What the engine says of an image; covered pixels hatched in magenta.

    A segmentation lies half over the image; a detector's boxes are drawn onto it.

    Args:
        image: uint8 (H, W, 3) of the engine's size.
        result: of this image.
        classes: class names.
    """
    if result.prediction is not None:
        mixed = image * 0.5 + colour_prediction(result.prediction, classes) * 0.5
    else:
        mixed = image.astype(np.float64)
    mixed = _hatched(mixed, result)
    if result.detections is not None:
        return _with_boxes(mixed, result.detections, classes)
    return mixed


def _with_boxes(image: Picture, found: Detections, classes: tuple[str, ...]) -> Picture:
    """Boxes in their class's colour, with name and score, the surest on top."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    colours = palette(classes)
    for box, score, label in reversed(
        list(zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True))
    ):
        colour = tuple(colours[label].tolist())
        draw.rectangle(box, outline=colour, width=2)
        draw.text((box[0] + 3, box[1] + 1), f"{classes[label]} {score:.2f}", fill=colour)
    return np.asarray(picture)


def _hatched(mixed: NDArray[np.float64], result: Result) -> Picture:
    covered = ~result.mask
    rows, columns = np.indices(covered.shape)
    hatch = covered & ((rows + columns) % 8 < 4)
    mixed[hatch] = mixed[hatch] * 0.4 + _COVERED * 0.6
    edge = covered & ~_eroded(covered)
    mixed[edge] = _COVERED
    return mixed.round().astype(np.uint8)


def mask_picture(result: Result) -> Picture:
    """White where a pixel was kept, black where it is covered, uint8 (H, W)."""
    return np.where(result.mask, np.uint8(255), np.uint8(0))


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 2)
    inner = mask.copy()
    for dy, dx in ((0, 2), (4, 2), (2, 0), (2, 4)):
        inner &= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    return inner

"""Example pictures: what the network sees, what it makes of it, and what the defense covers."""

from __future__ import annotations

import numpy as np

from zmask_export.evaluate.embedded import SCORE, address
from zmask_export.evaluate.page import Figure
from zmask_export.evaluate.subjects import Image, Network, Outcome
from zmask_export.runtime.detections import Detections
from zmask_export.runtime.pictures import Picture, overlay, palette
from zmask_export.runtime.protected import Result

_COVERED = np.array((255, 0, 255), np.uint8)


def example(
    network: Network, image: Image, classes: tuple[str, ...], attack: str
) -> tuple[Figure, ...]:
    """Pictures of one patched image: as it is, what is covered of it, and what the network makes of
    it without and with the defense: classes in colours, or boxes.

    Args:
        network: runs bare and defended.
        image: float32 (1, 3, H, W).
        classes: class names.
        attack: what the captions call the patch.
    """
    frame = (image[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    bare, defended = network.bare(image), network.defended(image)
    pictures = [(f"Patched frame ({attack})", frame)]
    if defended.kept is not None:
        covered = np.where(defended.kept[..., None], frame, _COVERED)
        pictures.append(("Covered by Z-Mask (magenta)", covered))
    for how, outcome in (("bare", bare), ("defended", defended)):
        if outcome.prediction is not None:
            pictures.append((f"Prediction, {how}", palette(classes)[outcome.prediction]))
        if outcome.detections is not None:
            caption = f"Objects found, {how} (score {SCORE} or more)"
            pictures.append((caption, _with_boxes(frame, outcome, outcome.detections, classes)))
    return tuple(Figure(caption, source=address(picture)) for caption, picture in pictures)


def _with_boxes(
    frame: Picture, outcome: Outcome, found: Detections, classes: tuple[str, ...]
) -> Picture:
    shown = found.above(SCORE)
    kept = np.ones(frame.shape[:2], np.bool_) if outcome.kept is None else outcome.kept
    nothing = np.zeros((0, 0), np.float32)
    result = Result(
        prediction=None, detections=shown, mask=kept, flag=not kept.all(), score=0.0, threshold=0.0,
        soft_mask=nothing, heatmap_shallow=nothing, heatmap_deep=nothing, outputs={},
    )  # fmt: skip
    return overlay(frame, result, classes)

"""True boxes and detections of one image, written down or drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zmask_export.data.coco import BoxSample
from zmask_export.runtime.detections import Detections

SIZE = (60, 80)
A, B, C = (0, 0, 20, 20), (30, 0, 60, 30), (0, 40, 40, 60)
Box = tuple[float, float, float, float]


def sample(
    *boxes: Box, labels: list[int] | None = None, crowd: list[bool] | None = None
) -> BoxSample:
    """A black image with cars in it, unless labels are given."""
    return BoxSample(
        Path("image.png"),
        np.zeros((*SIZE, 3), np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([1] * len(boxes) if labels is None else labels, np.int64),
        np.array([False] * len(boxes) if crowd is None else crowd, np.bool_),
        np.zeros((0, 4), np.float32),
    )


def found(*boxes: Box, scores: list[float], labels: list[int] | None = None) -> Detections:
    """Cars, unless labels are given."""
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array([1] * len(boxes) if labels is None else labels, np.int64),
    )


def drawn(rng: np.random.Generator) -> tuple[BoxSample, Detections]:
    """Up to six objects, and up to ten detections near them."""
    count, claims = int(rng.integers(0, 7)), int(rng.integers(0, 11))
    corners = rng.integers(0, 40, (count, 2))
    boxes = np.hstack([corners, corners + rng.integers(5, 30, (count, 2))])
    labels, crowd = rng.integers(1, 4, count), rng.random(count) < 0.2
    if not count:
        return sample(), found(scores=[])
    picked = rng.integers(0, count, claims)
    near = boxes[picked] + rng.normal(0, 2, (claims, 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    scores = np.sort(rng.random(claims))[::-1]
    return (
        sample(*boxes.tolist(), labels=labels.tolist(), crowd=crowd.tolist()),
        found(*near.tolist(), scores=scores.tolist(), labels=labels[picked].tolist()),
    )

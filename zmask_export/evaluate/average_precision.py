"""Average precision of detectors, as COCO measures it.

:func:`judge` asks a library that implements COCO's evaluation: figures that are reported come from there.
:class:`Matches` holds what one IoU threshold needs, an image at a time, so that the bootstrap over images
costs no second matching; its value is the library's.

A true box that is marked crowd counts neither as found nor as missed, and a detection of its class that
lies in it, by as much of its area as the threshold says, counts not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from zmask_export.attack.targets import MOST_COVERED
from zmask_export.data.coco import BoxSample
from zmask_export.errors import ShapeError
from zmask_export.evaluate.bootstrap import Weights
from zmask_export.runtime.detections import Detections
from zmask_export.spec import Spec

MAX_DETECTIONS = 100
"""So many detections of a class in an image count, the surest, as in COCO."""

_RECALLS = np.linspace(0, 1, 101)
_Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Truths:
    """The true objects of one image.

    Attributes:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels.
        labels: int64 (n,), 1 or more.
        crowd: bool (n,); need not be found.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @classmethod
    def of(cls, sample: BoxSample) -> Truths:
        """Those of a data set's image."""
        return cls(sample.boxes, sample.labels, sample.crowd)


class AveragePrecision(Spec):
    """Average precision over a set of images; None where there is no object to find.

    Attributes:
        at_50: mean over classes at IoU 0.5.
        at_50_95: mean over classes and the IoUs 0.5, 0.55, ..., 0.95.
        classes_at_50: class name to average precision at IoU 0.5.
        objects: class name to the number of objects to find.
    """

    at_50: float | None
    at_50_95: float | None
    classes_at_50: dict[str, float | None]
    objects: dict[str, int]


def beside_patch(
    truths: Truths, found: Detections, patch: tuple[float, float, float, float]
) -> tuple[Truths, Detections]:
    """What counts of an image with a patch: objects that the patch does not hide, and no find in it.

    Args:
        truths: the objects; one of which more than :data:`MOST_COVERED` is under the patch becomes crowd.
        found: the detections; one of which more than that is under the patch is dropped.
        patch: x1 y1 x2 y2 in pixels.
    """
    area = np.array([patch], np.float64)
    hidden = _overlaps(truths.boxes, area, np.ones(1, np.bool_))[:, 0] > MOST_COVERED
    kept = _overlaps(found.boxes, area, np.ones(1, np.bool_))[:, 0] <= MOST_COVERED
    return (
        Truths(truths.boxes, truths.labels, truths.crowd | hidden),
        Detections(found.boxes[kept], found.scores[kept], found.labels[kept]),
    )


def judge(
    truths: Sequence[Truths], found: Sequence[Detections], categories: Mapping[int, str]
) -> AveragePrecision:
    """COCO's evaluation of a set of images.

    Args:
        truths: true objects, an item an image.
        found: detections, an item an image in the same order.
        categories: label to name; other labels do not count.

    Raises:
        ShapeError: not as many ``found`` as ``truths``.
    """
    _require_pairs(truths, found)
    names = dict(sorted(categories.items()))
    images = [{"id": i, "height": 1, "width": 1} for i in range(len(truths))]
    listed = [{"id": label, "name": name} for label, name in names.items()]
    content = {"images": images, "categories": listed}
    expected = COCO(content | {"annotations": _annotations(truths)})
    scored = COCO(content | {"annotations": _annotations(found)})
    evaluation = COCOeval_faster(expected, scored, iouType="bbox", print_function=_quiet)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    # (IoUs, recalls, classes, 1, 1), -1 where a class has no object.
    precision = np.asarray(evaluation.eval["precision"])[..., 0, 0]
    return AveragePrecision(
        at_50=_mean(precision[0]),
        at_50_95=_mean(precision),
        classes_at_50={name: _mean(precision[0, :, i]) for i, name in enumerate(names.values())},
        objects={
            name: sum(int(np.sum((t.labels == label) & ~t.crowd)) for t in truths)
            for label, name in names.items()
        },
    )


class Matches:
    """Detections of any number of images, each matched at one IoU threshold when it comes.

    Args:
        categories: label to name; other labels do not count.
        threshold: smallest IoU of a detection and the object that it finds, in (0, 1].

    Attributes:
        images: how many were added.
    """

    def __init__(self, categories: Mapping[int, str], threshold: float = 0.5) -> None:
        self.images = 0
        self._threshold = threshold
        self._classes = {label: _Class() for label in categories}

    def add(self, truths: Truths, found: Detections) -> None:
        """Match one image."""
        for label, record in self._classes.items():
            true, claimed = truths.labels == label, found.labels == label
            # Stable, as COCO sorts: of equal scores the first counts as the surer.
            order = np.argsort(-found.scores[claimed], kind="stable")[:MAX_DETECTIONS]
            crowd = truths.crowd[true]
            overlaps = _overlaps(found.boxes[claimed][order], truths.boxes[true], crowd)
            counts, hits = _match(overlaps, crowd, self._threshold)
            record.objects.append(int(np.sum(~crowd)))
            record.scores.append(found.scores[claimed][order][counts])
            record.hits.append(hits[counts])
        self.images += 1

    def average_precision(self, weights: Weights) -> NDArray[np.float64]:
        """Mean over the classes that have an object, (B,); NaN where none has.

        Args:
            weights: how often each image counts, (B, n), whole numbers.
        """
        values = np.array([record.average_precision(weights) for record in self._classes.values()])
        known = ~np.isnan(values)
        total, classes = np.where(known, values, 0.0).sum(0), known.sum(0)
        return np.divide(total, classes, out=np.full(len(weights), np.nan), where=classes > 0)


@dataclass(frozen=True)
class _Class:
    """What is known of one class, an item an image: objects, and the detections that count."""

    objects: list[int] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    hits: list[NDArray[np.bool_]] = field(default_factory=list)

    def average_precision(self, weights: Weights) -> NDArray[np.float64]:
        """(B,); NaN where the images drawn hold no object."""
        image = np.repeat(np.arange(len(self.scores)), [len(part) for part in self.scores])
        order = np.argsort(-np.concatenate([*self.scores, []]), kind="stable")
        image, hits = image[order], np.concatenate([*self.hits, []])[order]
        objects = weights @ np.array(self.objects, np.float64)
        return np.array(
            [
                _interpolated(row[image], hits, total) if total else np.nan
                for row, total in zip(weights, objects, strict=True)
            ]
        )


def _interpolated(weights: NDArray[np.float64], hits: NDArray[np.float64], objects: float) -> float:
    """Mean of the best precision at each of 101 recalls or beyond, 0 where it is not reached."""
    found, claimed = np.cumsum(weights * hits), np.cumsum(weights)
    precision = found / (claimed + np.spacing(1))
    # Drawn twice, a detection gives two points; the best precision from there on is that of the second.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(found / objects, _RECALLS)
    return float(np.append(best, 0.0)[reached].mean())


def _overlaps(
    boxes: NDArray[np.floating], others: NDArray[np.floating], crowd: NDArray[np.bool_]
) -> _Boxes:
    """IoU (n, m) of boxes (n, 4) and others (m, 4); for a crowd, which part of the box lies in it."""
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    shared = np.clip(
        np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None
    ).prod(-1)
    of_box, of_other = (np.prod(c[..., 2:] - c[..., :2], -1) for c in (a, b))
    union = np.where(crowd, of_box, of_box + of_other - shared)
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def _match(
    overlaps: _Boxes, crowd: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """COCO's greedy matching of detections, the surest first, with objects.

    Args:
        overlaps: (n, m) of n detections with m objects.
        crowd: (m,).
        threshold: smallest overlap.

    Returns:
        which detections count, and which of them find an object, each (n,).
    """
    counts = np.ones(len(overlaps), np.bool_)
    hits = np.zeros(len(overlaps), np.bool_)
    free = ~crowd
    for i, row in enumerate(overlaps):
        possible = np.flatnonzero(free & (row >= threshold))
        if possible.size:
            # Of equal overlaps the last, as COCO takes it.
            best = possible[::-1][np.argmax(row[possible[::-1]])]
            free[best], hits[i] = False, True
        else:
            counts[i] = not np.any(crowd & (row >= threshold))
    return counts, hits


def _annotations(images: Sequence[Truths | Detections]) -> list[dict[str, Any]]:
    numbers = count(1)
    records = []
    for index, image in enumerate(images):
        sizes = image.boxes.astype(np.float64)
        sizes[:, 2:] -= sizes[:, :2]
        if isinstance(image, Truths):
            own: list[dict[str, Any]] = [{"iscrowd": int(crowd)} for crowd in image.crowd]
        else:
            own = [{"iscrowd": 0, "score": float(score)} for score in image.scores]
        for box, label, rest in zip(sizes.tolist(), image.labels.tolist(), own, strict=True):
            where = {"id": next(numbers), "image_id": index, "category_id": label}
            records.append({**where, "bbox": box, "area": box[2] * box[3], **rest})
    return records


def _mean(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _quiet(*_: object) -> None:
    """What the library would print."""


def _require_pairs(truths: Sequence[Truths], found: Sequence[Detections]) -> None:
    if len(truths) != len(found):
        raise ShapeError(
            f"{len(truths)} images have true boxes and {len(found)} have detections.",
            fix="Give one item of each for every image, in the same order.",
        )

"""A network of lower precision against its float32 twin, on labelled images: what the defense must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.errors import ParityError
from zmask_export.evaluate.cells import scene
from zmask_export.evaluate.detection import auc
from zmask_export.evaluate.metrics import mask_iou
from zmask_export.evaluate.subjects import Network, Outcome
from zmask_export.evaluate.task import WORDING, Samples, Task, main_metric
from zmask_export.spec import Precision, Spec, Tolerances

_TINY = float(np.finfo(np.float32).tiny)
Both = tuple[float, float]
"""A number of the lower precision, and of float32."""


class Flip(Spec):
    """An image that only one of the two flags.

    ``margin`` is |d - threshold| / threshold of the float32 score.
    """

    image: str
    flag: bool
    score: float
    float32_score: float
    margin: float


class TwinReport(Spec):
    """What a lower precision changes.

    Attributes:
        precision: of the network.
        images: how many, each clean and patched.
        metric: name of the quality.
        clean, patched: quality on clean and on patched images, with the defense; see :data:`Both`.
        auc: of detection by d.
        flips: images that only one flags.
        score_error: largest and median |d - d32| / d32.
        mask_iou: least and mean IoU of what both cover, over patched images that both flag; None without
            any.
        pixels: largest and mean share of pixels of another class, where the flags agree.
        tolerances: the contract; ``score_rtol`` bounds the largest score error, and is the band around the
            threshold where flags may differ.
    """

    precision: Precision
    images: int
    metric: str
    clean: Both
    patched: Both
    auc: Both
    flips: tuple[Flip, ...]
    score_error: Both
    mask_iou: Both | None
    pixels: Both
    tolerances: Tolerances

    @property
    def problems(self) -> list[str]:
        """What breaks the contract."""
        limits = self.tolerances
        bars = (
            (f"clean {self.metric}", self.clean, limits.quality),
            (f"patched {self.metric}", self.patched, limits.quality),
            ("AUC", self.auc, limits.auc),
        )
        found = [
            f"{name} {low:.4f} against {full:.4f}"
            for name, (low, full), bar in bars
            if not abs(low - full) <= (bar or 0.0)
        ]
        found += [
            f"{flip.image} is {'' if flip.flag else 'not '}flagged at a margin of {flip.margin:.2g}"
            for flip in self.flips
            if flip.margin > limits.score_rtol
        ]
        if not self.score_error[0] <= limits.score_rtol:
            found.append(f"a score off by {self.score_error[0]:.2g}")
        if self.mask_iou is not None and self.mask_iou[1] < limits.mask_iou:
            found.append(f"mask IoU {self.mask_iou[1]:.4f}")
        return found

    def require(self) -> None:
        """Raise where the contract is broken.

        Raises:
            ParityError: with the first problems.
        """
        problems = self.problems
        if problems:
            raise ParityError(
                f"{self.precision} differs too much from float32: {'; '.join(problems[:3])}.",
                fix="Build with another --precision; for int8, with more --images of the camera.",
            )


def compare_twins(
    lower: Network,
    full: Network,
    samples: Samples[Any],
    task: Task[Any, Any],
    patch: Tensor,
    *,
    precision: Precision,
    tolerances: Tolerances,
    seed: int = 0,
    on_image: Callable[[int], None] | None = None,
) -> TwinReport:
    """Run both on every image, clean and with the patch at one place.

    Args:
        lower: the network of lower precision.
        full: the same in float32, with the same threshold.
        samples: labelled images of its size; at least one.
        task: judges the answers.
        patch: (3, h, w) in [0, 1].
        precision, tolerances: of ``lower``.
        seed: of the patch's places.
        on_image: told the number of images done.

    Raises:
        PatchError: the patch is larger than the images.
    """
    networks = (lower, full)
    # Of clean and patched images, and of both networks, in this order.
    judged: list[list[list[Any]]] = [[[], []], [[], []]]
    scores: list[list[list[float]]] = [[[], []], [[], []]]
    flips, ious, pixels = [], [], []
    for index in range(len(samples)):
        sample = samples[index]
        for kind, attack in enumerate((None, patch)):
            image, inside = scene(sample, attack, index, seed)
            outcomes = [network.defended(image) for network in networks]
            for which, outcome in enumerate(outcomes):
                judged[kind][which].append(task.judge(outcome, sample, inside))
                scores[kind][which].append(outcome.scores["zmask"])
            d, d32 = (outcome.scores["zmask"] for outcome in outcomes)
            flags = [not score <= full.threshold for score in (d, d32)]
            if flags[0] != flags[1]:
                flips.append(
                    Flip(
                        image=f"image {index}, {('clean', 'patched')[kind]}",
                        flag=flags[0],
                        score=d,
                        float32_score=d32,
                        margin=abs(d32 - full.threshold) / full.threshold,
                    )
                )
                continue
            pixels.append(_pixels(*outcomes))
            if flags[0] and kind:
                ious.append(_masks(*outcomes))
        if on_image is not None:
            on_image(index + 1)
    ones = np.ones((1, len(samples)))
    quality = [[float(main_metric(task.join(parts))(ones)[0]) for parts in kind] for kind in judged]
    arrays = np.array(scores)
    errors = np.abs(arrays[:, 0] - arrays[:, 1]) / np.maximum(np.abs(arrays[:, 1]), _TINY)
    return TwinReport(
        precision=precision,
        images=len(samples),
        metric=WORDING[task.name].metric,
        clean=(quality[0][0], quality[0][1]),
        patched=(quality[1][0], quality[1][1]),
        auc=(_auc(arrays[:, 0], ones), _auc(arrays[:, 1], ones)),
        flips=tuple(flips),
        score_error=(float(errors.max()), float(np.median(errors))),
        mask_iou=(min(ious), float(np.mean(ious))) if ious else None,
        pixels=(max(pixels, default=0.0), float(np.mean(pixels)) if pixels else 0.0),
        tolerances=tolerances,
    )


def _auc(scores: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Of clean and patched scores (2, n); NaN, which breaks every contract, where one is not finite."""
    if not np.isfinite(scores).all():
        return float("nan")
    return float(auc(scores[0], scores[1], weights)[0])


def _pixels(one: Outcome, other: Outcome) -> float:
    if one.prediction is None or other.prediction is None:
        return 0.0
    return float((one.prediction != other.prediction).mean())


def _masks(one: Outcome, other: Outcome) -> float:
    if one.kept is None or other.kept is None:
        return 1.0
    return mask_iou(~one.kept, ~other.kept)

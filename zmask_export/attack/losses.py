"""What a patch is optimised for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from zmask_export.data.segmentation import IGNORE


@dataclass(frozen=True)
class PixelLosses:
    """Cross-entropies of a batch, by what the network says now.

    Attributes:
        right, wrong: sums over the pixels that it classifies rightly, and wrongly.
        share: gamma, the share of the pixels that are right; 0 where none counts.
        count: number of pixels that count, at least 1.
    """

    right: Tensor
    wrong: Tensor
    share: Tensor
    count: Tensor

    @property
    def total(self) -> Tensor:
        """The untargeted loss of Nesti et al. (WACV 2022), to be maximised:
        (gamma * right + (1 - gamma) * wrong) / count."""
        return (self.share * self.right + (1 - self.share) * self.wrong) / self.count


def at_every_pixel(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (N, C, h, w) of an image of ``size``: coarser ones at the nearest cell, as runtimes do it."""
    return logits if logits.shape[2:] == size else F.interpolate(logits, size, mode="nearest")


def pixel_losses(
    logits: Tensor, labels: Tensor, outside: Tensor, weights: Tensor | None = None
) -> PixelLosses:
    """Cross-entropy over the pixels that are still right and over those that are wrong.

    Args:
        logits: (N, C, H, W).
        labels: int64 (N, H, W), IGNORE where unlabelled.
        outside: bool (N, H, W), True outside the patch; only these pixels count.
        weights: weight of each class's pixels, (C,); all 1 where None.
    """
    counted = outside & (labels != IGNORE)
    ce = F.cross_entropy(logits.float(), labels, weights, ignore_index=IGNORE, reduction="none")
    right = counted & (logits.argmax(1) == labels)
    wrong = counted & ~right
    count = counted.sum().clamp(min=1)
    return PixelLosses((ce * right).sum(), (ce * wrong).sum(), right.sum() / count, count)


def segmentation_loss(
    logits: Tensor, labels: Tensor, outside: Tensor, weights: Tensor | None = None
) -> Tensor:
    """The total of :func:`pixel_losses`: a scalar, 0 where no pixel counts."""
    return pixel_losses(logits, labels, outside, weights).total


def class_balance(labels: Iterable[NDArray[np.uint8]], classes: int) -> Tensor:
    """Weights (C,) that let every class count the same in all, as mIoU does; 0 where it is absent.

    Args:
        labels: label maps (H, W) with IGNORE.
        classes: C.
    """
    counts = sum(
        (np.bincount(m.ravel(), minlength=256)[:classes] for m in labels), np.zeros(classes)
    )
    present = counts > 0
    weights = np.divide(counts.sum(), counts * present.sum(), out=np.zeros(classes), where=present)
    return torch.from_numpy(weights).float()


def smoothness(patch: Tensor) -> Tensor:
    """L_S of Eq. 11: squared differences of neighbours, summed over a patch (3, h, w)."""
    down = (patch[:, 1:] - patch[:, :-1]).square().sum()
    across = (patch[:, :, 1:] - patch[:, :, :-1]).square().sum()
    return down + across

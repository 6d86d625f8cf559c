"""What a patch is optimised for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from zmask_export.data.segmentation import IGNORE


def segmentation_loss(
    logits: Tensor, labels: Tensor, outside: Tensor, weights: Tensor | None = None
) -> Tensor:
    """The untargeted loss of Nesti et al. (WACV 2022), to be maximised.

    gamma * sum of CE over pixels still right + (1 - gamma) * sum of CE over pixels already wrong,
    gamma the share still right; divided by the number of pixels that count.

    Args:
        logits: (N, C, H, W).
        labels: int64 (N, H, W), IGNORE where unlabelled.
        outside: bool (N, H, W), True outside the patch; only these pixels count.
        weights: weight of each class's pixels, (C,); all 1 where None.

    Returns:
        Scalar; 0 where no pixel counts.
    """
    counted = outside & (labels != IGNORE)
    total = counted.sum()
    if total == 0:
        return logits.sum() * 0
    ce = F.cross_entropy(logits.float(), labels, weights, ignore_index=IGNORE, reduction="none")
    right = counted & (logits.argmax(1) == labels)
    wrong = counted & ~right
    gamma = right.sum() / total
    return (gamma * (ce * right).sum() + (1 - gamma) * (ce * wrong).sum()) / total


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


def unit(gradient: Tensor) -> Tensor:
    """v / ||v||_2, the per-loss normalisation of B.2; 0 stays 0."""
    norm = gradient.norm()
    return gradient / norm if norm > 0 else torch.zeros_like(gradient)

"""What a patch is optimised for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zmask_export.data.segmentation import IGNORE


def segmentation_loss(logits: Tensor, labels: Tensor, outside: Tensor) -> Tensor:
    """The untargeted loss of Nesti et al. (WACV 2022), to be maximised.

    gamma * sum of CE over pixels still right + (1 - gamma) * sum of CE over pixels already wrong,
    gamma the share still right; divided by the number of pixels that count.

    Args:
        logits: (N, C, H, W).
        labels: int64 (N, H, W), IGNORE where unlabelled.
        outside: bool (N, H, W), True outside the patch; only these pixels count.

    Returns:
        Scalar; 0 where no pixel counts.
    """
    counted = outside & (labels != IGNORE)
    total = counted.sum()
    if total == 0:
        return logits.sum() * 0
    ce = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    right = counted & (logits.argmax(1) == labels)
    wrong = counted & ~right
    gamma = right.sum() / total
    return (gamma * ce[right].sum() + (1 - gamma) * ce[wrong].sum()) / total


def smoothness(patch: Tensor) -> Tensor:
    """L_S of Eq. 11: squared differences of neighbours, summed over a patch (3, h, w)."""
    down = (patch[:, 1:] - patch[:, :-1]).square().sum()
    across = (patch[:, :, 1:] - patch[:, :, :-1]).square().sum()
    return down + across


def unit(gradient: Tensor) -> Tensor:
    """v / ||v||_2, the per-loss normalisation of B.2; 0 stays 0."""
    norm = gradient.norm()
    return gradient / norm if norm > 0 else torch.zeros_like(gradient)

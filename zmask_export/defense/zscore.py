"""The channel-wise z-score (Section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from zmask_export.spec import SMALLEST_STD


def zscore(h: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(h - mu) / sigma per channel; in a dead channel 0, or NaN where h is not finite.

    A channel is dead where sigma is below ``SMALLEST_STD``.

    Args:
        h: activations (N, C, h, w).
        mean: mu, (C,).
        std: sigma, (C,), non-negative.
    """
    mu, sigma = mean[None, :, None, None], std[None, :, None, None]
    dead = sigma < SMALLEST_STD
    centred = h - mu
    return torch.where(dead, centred * 0.0, centred / torch.where(dead, 1.0, sigma))

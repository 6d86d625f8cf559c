"""The channel-wise z-score (Section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor


def zscore(h: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(h - mu) / sigma per channel; 0 where sigma is 0 (a dead channel), never inf.

    Args:
        h: activations (N, C, h, w).
        mean: mu, (C,).
        std: sigma, (C,), non-negative.
    """
    mu, sigma = mean[None, :, None, None], std[None, :, None, None]
    dead = sigma == 0
    return torch.where(dead, torch.zeros_like(h), (h - mu) / torch.where(dead, 1.0, sigma))

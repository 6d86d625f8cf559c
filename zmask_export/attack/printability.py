"""The non-printability score (Eq. 10): how far a patch's colours are from those of a printer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 4096
"""Pixels that are compared with the palette at once."""


def log_scores(pixels: Tensor, palette: Tensor) -> Tensor:
    """log L_N(p), the sum over the palette of log ||p - c||; -inf for a colour of the palette.

    Args:
        pixels: (n, 3).
        palette: (k, 3), the same range and dtype.

    Returns:
        (n,). The gradient of a pixel that is -inf is 0.
    """
    squared = (pixels[:, None] - palette).square().sum(dim=2)
    same = squared == 0
    logs = 0.5 * torch.where(same, 1.0, squared).log().sum(dim=1)
    return torch.where(same.any(dim=1), -torch.inf, logs)


def log_non_printability(patch: Tensor, palette: Tensor) -> Tensor:
    """Logarithm of L_N averaged over the pixels; its gradient has the direction of L_N's own.

    The product over a palette of tens of colours leaves the range of a float32, and so does its
    gradient; their logarithm does not, and every loss's gradient is normalised anyway (B.2).

    Args:
        patch: (3, h, w) in [0, 1].
        palette: colours (k, 3) in [0, 1].

    Returns:
        Scalar, float64; -inf, with a gradient of 0, where every pixel is printable.
    """
    pixels = patch.double().flatten(1).T
    logs = torch.cat(
        [
            checkpoint(
                log_scores, chunk, palette.double(), use_reentrant=False, preserve_rng_state=False
            )
            for chunk in torch.split(pixels, CHUNK)
        ]
    )
    if torch.isneginf(logs).all():
        return patch.double().sum() * 0 - torch.inf
    return logs.logsumexp(dim=0) - torch.log(torch.tensor(len(logs), dtype=torch.double))

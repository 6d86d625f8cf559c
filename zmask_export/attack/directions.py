"""Directions in which losses fall or grow, each of length 1, and their mixture (B.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Weighted = tuple[float | Tensor, Tensor]
"""A weight and what it weighs: a loss, or a direction."""


def unit(gradient: Tensor) -> Tensor:
    """n(v) = v / ||v||_2, the per-loss normalisation of B.2; 0 stays 0, and nan stays nan."""
    norm = gradient.norm()
    return gradient / norm if norm != 0 else torch.zeros_like(gradient)


def direction(loss: Tensor, patch: Tensor) -> Tensor:
    """n(grad L) with respect to the patch; the graph is kept."""
    (gradient,) = torch.autograd.grad(loss, patch, retain_graph=True)
    return unit(gradient)


def blend(parts: Sequence[Weighted]) -> Tensor:
    """n(sum of weight * direction)."""
    first, *rest = (weight * part for weight, part in parts)
    return unit(sum(rest, start=first))

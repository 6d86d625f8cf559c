"""The Spatial Pooling Refinement: from z-scores to a heatmap (Eq. 3).

Two forms that share nothing but the operators' definition:

- :func:`literal_heatmap` is Eq. 3 as written, one pooling after the other. It is the reference.
- :func:`deployed_heatmap` uses that every stage is a product with two small matrices, and that
  the norms telescope: with Q_i = P_1 * ... * P_i, a_m = Q_m / max|Q_{m-1}|. It is what fitting
  uses, and it is differentiable like the literal one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zmask_export.defense import pooling
from zmask_export.defense.matrices import stage_matrices
from zmask_export.spec import Registration, Size


def literal_heatmap(
    z: Tensor, kernels: Sequence[Size], grid: Size, registration: Registration
) -> Tensor:
    """H(l) by Eq. 3: the channel mean of |a_m|.

    Args:
        z: z-scores (N, C, h, w).
        kernels: (kh, kw) of A_1 ... A_m on the grid.
        grid: (HR, WR).
        registration: how a pooled map is laid back onto the grid.

    Returns:
        Heatmap (N, 1, HR, WR), >= 0; 0 for an image whose z-scores vanish.
    """
    # PyTorch averages several times faster over channels-last maps, to the same bits.
    z = z.contiguous(memory_format=torch.channels_last)
    a = torch.ones(z.shape[0], 1, *grid, dtype=z.dtype, device=z.device)
    for kernel in kernels:
        norm = a.abs().amax(dim=(1, 2, 3), keepdim=True)
        scaled = torch.where(norm > 0, a / torch.where(norm > 0, norm, 1.0), 0.0)
        a = pooling.stage(z, kernel, grid, registration) * scaled
    return a.abs().mean(dim=1, keepdim=True)


BLOCK = 16
"""Channels that the deployed form takes at once; small blocks stay in cache."""


def deployed_heatmap(
    z: Tensor, kernels: Sequence[Size], grid: Size, registration: Registration
) -> Tensor:
    """:func:`literal_heatmap` by matrix products and telescoped norms; same shapes and values."""
    stages = []
    for kernel in kernels:
        rows = stage_matrices(z.shape[2], kernel[0], grid[0], registration)
        columns = stage_matrices(z.shape[3], kernel[1], grid[1], registration)
        left = torch.tensor(rows, dtype=z.dtype, device=z.device)
        right = torch.tensor(columns.T, dtype=z.dtype, device=z.device)
        stages.append((left, right))
    total = torch.zeros(z.shape[0], 1, *grid, dtype=z.dtype, device=z.device)
    norm = torch.zeros(z.shape[0], 1, 1, 1, dtype=z.dtype, device=z.device)
    for block in torch.split(z, BLOCK, dim=1):
        before = product = torch.ones(z.shape[0], 1, 1, 1, dtype=z.dtype, device=z.device)
        for left, right in stages:
            before, product = product, left @ (block @ right) * product
        total = total + product.abs().sum(dim=1, keepdim=True)
        norm = torch.maximum(norm, before.abs().amax(dim=(1, 2, 3), keepdim=True))
    safe = torch.where(norm > 0, norm, 1.0)
    return torch.where(norm > 0, total / (z.shape[1] * safe), 0.0)

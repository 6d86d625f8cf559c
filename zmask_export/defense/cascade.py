"""The Spatial Pooling Refinement: from z-scores to a heatmap (Eq. 3).

Two forms that share nothing but the operators' definition:

- :func:`literal_heatmap` is Eq. 3 as written, one pooling after the other. It is the reference.
- :func:`deployed_heatmap` uses that every stage is a product with two small matrices, and that
  the norms telescope: with Q_i = P_1 * ... * P_i, a_m = Q_m / max|Q_{m-1}|. It is what fitting
  uses, and it is differentiable like the literal one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

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
        # Where the norm is 0 so is a; what is no number must not become 0.
        scaled = a / torch.where(norm > 0, norm, 1.0)
        a = pooling.stage(z, kernel, grid, registration) * scaled
    return a.abs().mean(dim=1, keepdim=True)


BLOCK = 16
"""Channels that the deployed form takes at once; small blocks stay in cache."""

Stages = list[tuple[Tensor, Tensor]]


def deployed_heatmap(
    z: Tensor, kernels: Sequence[Size], grid: Size, registration: Registration
) -> Tensor:
    """:func:`literal_heatmap` by matrix products and telescoped norms; same shapes and values.

    Its backward pass computes a block's maps again instead of keeping them: they take a gigabyte an
    image.
    """
    stages = []
    for kernel in kernels:
        rows = stage_matrices(z.shape[2], kernel[0], grid[0], registration)
        columns = stage_matrices(z.shape[3], kernel[1], grid[1], registration)
        left = torch.tensor(rows, dtype=z.dtype, device=z.device)
        right = torch.tensor(columns.T, dtype=z.dtype, device=z.device)
        stages.append((left, right))
    total, norm = _Cascade.apply(z, stages)
    # As in the literal form.
    return total / (z.shape[1] * torch.where(norm > 0, norm, 1.0))


class _Cascade(torch.autograd.Function):
    """z (N, C, h, w) to the channel sum of |Q_m| (N, 1, HR, WR) and max|Q_{m-1}| (N, 1, 1, 1)."""

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, stages: Stages) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0], 1, len(stages[0][0]), stages[0][1].shape[1])
        norms = []
        for block in torch.split(z, BLOCK, dim=1):
            before = product = z.new_ones(z.shape[0], 1, 1, 1)
            for left, right in stages:
                before, product = product, (left @ (block @ right)).mul_(product)
            total += product.abs().sum(dim=1, keepdim=True)
            norms.append(before.abs().amax(dim=(1, 2, 3), keepdim=True))
        norm = torch.stack(norms).amax(dim=0)
        ctx.stages, ctx.norms = stages, norms  # type: ignore[attr-defined]
        ctx.save_for_backward(z, norm)
        return total, norm

    @staticmethod
    def backward(ctx: Any, d_total: Tensor, d_norm: Tensor) -> tuple[Tensor, None]:
        z, norm = ctx.saved_tensors
        parts = []
        for block, highest in zip(torch.split(z, BLOCK, dim=1), ctx.norms, strict=True):
            # Blocks without the largest value have no part in the norm.
            peak = (norm, d_norm) if bool((highest == norm).any()) else None
            parts.append(_block_gradient(block, ctx.stages, d_total, peak))
        return torch.cat(parts, dim=1), None


def _block_gradient(
    block: Tensor, stages: Stages, d_total: Tensor, peak: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Gradient of one block's z; ``peak`` holds the norm and its gradient where the block has it."""
    maps = [left @ (block @ right) for left, right in stages]
    products = list(itertools.accumulate(maps, torch.mul, initial=block.new_ones(1, 1, 1, 1)))
    gradient = products[-1].sign() * d_total
    result = torch.zeros_like(block)
    for index in reversed(range(len(stages))):
        left, right = stages[index]
        result += left.T @ (gradient * products[index]) @ right.T
        gradient *= maps[index]
        if peak is not None and index == len(stages) - 1 > 0:
            # gradient is that of Q_{m-1} now, which the norm reads.
            before, (norm, d_norm) = products[index], peak
            gradient += torch.where(before.abs() == norm, before.sign() * d_norm, 0.0)
    return result

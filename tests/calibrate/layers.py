"""Made-up layers that see patches, halves of them, or nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zmask_export.calibrate.evidence import Evidence

IMAGES, SIDE = 6, 12


def patch_cells() -> Tensor:
    """A square of 4 x 4 cells, elsewhere in every image."""
    target = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.bool)
    for index in range(IMAGES):
        target[index, index : index + 4, 2 : 6] = True  # fmt: skip
    return target


def half_of_patch(left: bool) -> Tensor:
    """Its left or right two columns."""
    half = patch_cells()
    half[:, :, 4:6] &= not left
    half[:, :, 2:4] &= left
    return half


def heatmaps_of(where: Tensor | None, seed: int = 0) -> Tensor:
    """Heatmaps of a layer that is hot ``where`` the patch is; one of noise alone where None."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(IMAGES, 2, SIDE, SIDE, generator=generator)
    if where is not None:
        maps[:, 1] += 9.0 * where
    return maps.flatten(2).bfloat16()


def evidence_of(layers: dict[str, Tensor | None]) -> Evidence:
    """Deep heatmaps are blurred by a cell, as their larger kernels do."""
    shallow, deep = {}, {}
    for seed, (tap, where) in enumerate(layers.items()):
        shallow[tap] = heatmaps_of(where, seed)
        blurred = None if where is None else F.max_pool2d(where.float(), 3, 1, 1) > 0
        deep[tap] = heatmaps_of(blurred, seed + 100)
    return Evidence(shallow, deep, patch_cells().flatten(1))

"""How well layers, and sets of them, localise a patch and tell patched images from clean ones.

Sets are judged without a fit, each by its task. S shall localise: HS where HD is above the level that
nearly all of the patches reach, as the fusion block gates it, is compared with the patch at the best
threshold, one for all images. D shall tell images apart: by the largest value of HD. The quality of
(S, D) is IoU * (2 AUC - 1), so it needs both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.attack.placement import grid_targets, paste, patch_masks, random_placement
from zmask_export.attack.transforms import Appearance, vary
from zmask_export.data.images import to_float
from zmask_export.defense.zmask import Heatmaps
from zmask_export.errors import DatasetError, PatchError
from zmask_export.models.bare import BareNetwork

GATE = 0.02
"""Share of the patches' cells that the gate of D may lose."""
TINY = 1e-12
"""Smaller values count as this one, so that a dead layer has a logarithm."""
LEVELS = 64
"""Thresholds tried: quantiles of the values inside the patches."""

Taps = tuple[str, ...]


@dataclass(frozen=True)
class Quality:
    """How well heatmaps find patches.

    Attributes:
        iou: mean IoU with the patch at the best threshold, in [0, 1].
        auc: how well their largest values tell images apart, see :func:`separation`; 0.5 is chance.
    """

    iou: float
    auc: float

    @property
    def value(self) -> float:
        """IoU * (2 AUC - 1), in [0, 1]; 0 where images are not told apart."""
        return self.iou * max(0.0, 2 * self.auc - 1)


@dataclass(frozen=True)
class LayerQuality:
    """What one layer's own heatmaps do, those of its shallow and those of its deep cascade."""

    shallow: Quality
    deep: Quality

    @property
    def value(self) -> float:
        """The quality in the set that suits the layer better."""
        return max(self.shallow.value, self.deep.value)


@dataclass(frozen=True)
class Evidence:
    """Heatmaps of layers over n images, each clean and patched, with P grid cells.

    Attributes:
        shallow, deep: tap to heatmaps of its shallow and deep cascade, bfloat16 (n, 2, P), clean first.
        target: cells under the patch, bool (n, P).
    """

    shallow: dict[str, Tensor]
    deep: dict[str, Tensor]
    target: Tensor

    def every_second(self, start: int) -> Evidence:
        """Images ``start``, ``start`` + 2, ..."""
        return Evidence(
            {tap: maps[start::2] for tap, maps in self.shallow.items()},
            {tap: maps[start::2] for tap, maps in self.deep.items()},
            self.target[start::2],
        )

    def layer(self, tap: str) -> LayerQuality:
        """What one layer does alone."""
        qualities = []
        for maps in (self.shallow[tap].float(), self.deep[tap].float()):
            iou, _ = best_iou(maps[:, 1], self.target)
            qualities.append(Quality(iou, separation(maps.amax(2))))
        return LayerQuality(*qualities)

    def judge(self, shallow: Taps, deep: Taps) -> Quality:
        """What the sets S and D do together."""
        hs, hd = _union(self.shallow, shallow), _union(self.deep, deep)
        gate = float(np.quantile(hd[:, 1][self.target].numpy(), GATE))
        iou, _ = best_iou(torch.where(hd >= gate, hs, 0.0)[:, 1], self.target)
        return Quality(iou, separation(hd.amax(2)))


def observe(
    bare: BareNetwork,
    heatmaps: Heatmaps,
    images: Iterable[NDArray[np.uint8]],
    patches: Sequence[Tensor],
    *,
    seed: int = 0,
    appearance: Appearance | None = None,
    on_image: Callable[[int], None] | None = None,
) -> Evidence:
    """Heatmaps of every layer on images, clean and with one of ``patches`` somewhere in it.

    One image's activations are held at a time.

    Args:
        bare: network with the layers' taps.
        heatmaps: of a defense with all layers in S and in D.
        images: uint8 (H, W, 3), all of one size.
        patches: at least one, (3, h, w) in [0, 1], used in turn.
        seed: of placements and appearance.
        appearance: EOT ranges.
        on_image: told the number of images done.

    Raises:
        DatasetError: fewer than two images.
        PatchError: a patch is larger than the images, or covers no cell of the grid.
    """
    appearance = appearance or Appearance()
    taps = heatmaps.defense.taps
    shallow: dict[str, list[Tensor]] = {tap: [] for tap in taps}
    deep: dict[str, list[Tensor]] = {tap: [] for tap in taps}
    targets = []
    for index, array in enumerate(images):
        rng = np.random.default_rng((seed, index))
        image = torch.from_numpy(to_float([array]))
        size = (image.shape[2], image.shape[3])
        patch = patches[index % len(patches)]
        place = random_placement(rng, size, (patch.shape[1], patch.shape[2]), appearance.scale)
        patched = paste(image, [vary(patch, appearance, rng)], [place])
        target = grid_targets(patch_masks([place], size), heatmaps.defense.grid)
        if not target.any():
            raise PatchError(
                "A patch is too small for the grid: it does not cover half a cell of it.",
                fix="Give a larger patch, or choose a finer grid.",
            )
        with torch.inference_mode():
            maps = heatmaps(bare(torch.cat([image, patched]))[1])
        for branch, stored in (("shallow", shallow), ("deep", deep)):
            for tap in taps:
                stored[tap].append(maps[f"{branch}.{tap}"].flatten(1).bfloat16())
        targets.append(target.flatten().bool())
        if on_image is not None:
            on_image(index + 1)
    if len(targets) < 2:
        raise DatasetError(
            "Choosing taps takes at least two images.", fix="Give more with --images."
        )
    return Evidence(
        {tap: torch.stack(maps) for tap, maps in shallow.items()},
        {tap: torch.stack(maps) for tap, maps in deep.items()},
        torch.stack(targets),
    )


def best_iou(maps: Tensor, target: Tensor) -> tuple[float, float]:
    """The largest mean IoU of ``maps > t`` and ``target`` over t, and that t, one for all images.

    Args:
        maps: float32 (n, P), >= 0.
        target: bool (n, P), with a True in every row.
    """
    quantiles = np.quantile(maps[target].numpy(), np.linspace(0, 1, LEVELS, endpoint=False))
    levels = torch.from_numpy(np.unique(quantiles.astype(np.float32)))
    # A value passes the levels before its bin, so counts of later bins are those that pass.
    bins = torch.bucketize(maps.contiguous(), levels)
    bins += torch.arange(len(maps))[:, None] * (len(levels) + 1)
    shape = (len(maps), len(levels) + 1)
    count = len(maps) * shape[1]
    hits = _passing(torch.bincount(bins[target], minlength=count).reshape(shape))
    passed = _passing(torch.bincount(bins.flatten(), minlength=count).reshape(shape))
    union = passed + target.sum(1, keepdim=True) - hits
    iou = (hits / union).mean(0)
    best = int(iou.argmax())
    return float(iou[best]), float(levels[best])


def _passing(counts: Tensor) -> Tensor:
    """Values above each level: (n, levels + 1) counts a bin to (n, levels)."""
    return counts.flip(1).cumsum(1).flip(1)[:, 1:]


def separation(values: Tensor) -> float:
    """Binormal area under the ROC curve: Phi((m1 - m0) / sqrt(s0^2 + s1^2)) of the logarithms.

    On a few dozen images nearly every layer's counted area is 1; this one tells thin margins from
    wide ones.

    Args:
        values: float32 (n, 2), >= 0; of clean images (m0, s0) and of patched ones (m1, s1).

    Returns:
        In [0, 1]; 0.5 where both are the same constant.
    """
    logs = values.double().clamp(min=TINY).log()
    distance = float(logs[:, 1].mean() - logs[:, 0].mean())
    spread = math.sqrt(float(logs.var(0, correction=0).sum()))
    if spread == 0:
        return 0.5 + 0.5 * float(np.sign(distance))
    return 0.5 * (1 + math.erf(distance / spread / math.sqrt(2)))


def _union(maps: dict[str, Tensor], taps: Taps) -> Tensor:
    return torch.stack([maps[tap] for tap in taps]).amax(0).float()

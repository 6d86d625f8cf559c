"""Fitting the fusion block: eight parameters by Adam on pixel-wise BCE (Section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from zmask_export.attack.placement import (
    Placement,
    grid_targets,
    paste,
    patch_masks,
    random_placement,
)
from zmask_export.attack.transforms import Appearance, vary
from zmask_export.data.images import to_float
from zmask_export.defense import fusion
from zmask_export.defense.zmask import Heatmaps
from zmask_export.errors import DatasetError, PatchError
from zmask_export.models.bare import BareNetwork


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit; the paper's are the defaults.

    Attributes:
        epochs: passes over the set.
        lr: Adam's step.
        batch: images a step.
        appearance: EOT ranges of the pasted patches.
        seed: of placements and order.
    """

    epochs: int = 15
    lr: float = 0.01
    batch: int = 8
    appearance: Appearance = field(default_factory=Appearance)
    seed: int = 0


@dataclass(frozen=True)
class FitSet:
    """Heatmaps and where the patch is.

    Attributes:
        shallow, deep: HS and HD, float32 (n, 1, HR, WR).
        target: 1 inside the patch, float32 (n, 1, HR, WR); all 0 for a clean image.
        patched: bool (n,).
    """

    shallow: Tensor
    deep: Tensor
    target: Tensor
    patched: NDArray[np.bool_]


def collect(
    bare: BareNetwork,
    heatmaps: Heatmaps,
    images: Iterable[NDArray[np.uint8]],
    patches: Sequence[Tensor],
    settings: FitSettings,
    *,
    on_image: Callable[[int], None] | None = None,
) -> FitSet:
    """Heatmaps of every image, clean and with each of ``patches`` somewhere in it.

    Args:
        bare: network with the defense's taps.
        heatmaps: the defense's heatmaps.
        images: uint8 (H, W, 3), all of one size; one is held at a time.
        patches: patches (3, h, w) in [0, 1].
        settings: EOT ranges and seed.
        on_image: told the number of images done.

    Raises:
        DatasetError: no image or no patch.
        PatchError: a patch is larger than the images.
    """
    nothing = DatasetError(
        "A fit needs at least one image and one patch.", fix="Give --images and --patch."
    )
    if not patches:
        raise nothing
    grid = heatmaps.defense.grid
    shallow, deep, target, patched = [], [], [], []
    for index, array in enumerate(images):
        rng = np.random.default_rng((settings.seed, index))
        image = torch.from_numpy(to_float([array]))
        size = (image.shape[2], image.shape[3])
        places: list[Placement] = []
        batch = [image]
        for patch in patches:
            place = random_placement(
                rng, size, (patch.shape[1], patch.shape[2]), settings.appearance.scale
            )
            batch.append(paste(image, [vary(patch, settings.appearance, rng)], [place]))
            places.append(place)
        with torch.inference_mode():
            _, features = bare(torch.cat(batch))
            maps = heatmaps(features)
        shallow.append(maps["shallow"])
        deep.append(maps["deep"])
        target += [torch.zeros(1, 1, *grid), grid_targets(patch_masks(places, size), grid)]
        patched += [False] + [True] * len(patches)
        if on_image is not None:
            on_image(index + 1)
    if not shallow:
        raise nothing
    return FitSet(
        torch.cat(shallow).clone(), torch.cat(deep).clone(), torch.cat(target), np.array(patched)
    )


def fit_fusion(
    data: FitSet,
    settings: FitSettings,
    *,
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[Tensor, float]:
    """The eight parameters that minimise the BCE between soft mask and target.

    Both blocks start as soft steps at thresholds read off the data, so that no tanh begins saturated
    (the collapse that leaves g constant).

    Returns:
        Parameters (8,) float32 and the mean loss of the last epoch.

    Raises:
        PatchError: see :func:`initial_parameters`.
    """
    parameters = initial_parameters(data).requires_grad_(True)
    optimizer = torch.optim.Adam([parameters], lr=settings.lr)
    loss_value = float("nan")
    for epoch in range(settings.epochs):
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(data.shallow))
        losses = []
        for start in range(0, len(order), settings.batch):
            picked = torch.from_numpy(order[start : start + settings.batch])
            soft = fusion.soft_mask(data.shallow[picked], data.deep[picked], parameters)
            loss = F.binary_cross_entropy(soft, data.target[picked])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        loss_value = float(np.mean(losses))
        if on_epoch is not None:
            on_epoch(epoch + 1, loss_value)
    return parameters.detach(), loss_value


def initial_parameters(data: FitSet) -> Tensor:
    """Soft steps between the levels inside and outside the patch.

    Raises:
        PatchError: no patch covers half a cell of the grid anywhere.
    """
    inside = data.target > 0.5
    if not inside.any():
        raise PatchError(
            "The patches are too small for the grid: none covers half a cell of it.",
            fix="Fit on larger patches, or choose a finer grid.",
        )
    deep_cut, deep_spread = _step_between(data.deep, inside)
    w1 = 1.5 / deep_spread
    first = torch.tensor([w1, -w1 * deep_cut, 3.0, 0.0])
    product = fusion.deep_gate(data.deep, first) * data.shallow
    cut, spread = _step_between(product, inside)
    w3 = 1.5 / spread
    return torch.cat([first, torch.tensor([w3, -w3 * cut, 4.0, 0.0])])


def _step_between(values: Tensor, inside: Tensor) -> tuple[float, float]:
    low = float(_quantile(values[~inside], 0.95))
    high = float(_quantile(values[inside], 0.4))
    if high <= low:
        low, high = float(values[~inside].mean()), float(values[inside].mean())
    spread = max(abs(high - low) / 2, 1e-6)
    return (low + high) / 2, spread


def _quantile(values: Tensor, q: float) -> float:
    return float(np.quantile(values[:: max(1, values.numel() // 500_000)].numpy(), q))

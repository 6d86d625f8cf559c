"""The over-activation loss L_OZ (Eq. 14): how far a patch drives the shallow layers where it lies."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.scene import Scene
from zmask_export.defense.zscore import zscore


def over_activation(zscores: Iterable[Tensor], masks: Tensor) -> Tensor:
    """Mean over images, layers and channels of |mean z under the patch|.

    The mask M of Eq. 14 is brought to each layer by area, so that a patch smaller than one neuron's
    cell still counts, and |M| is its sum there.

    Args:
        zscores: z-scores (N, C, h, w), one a layer.
        masks: where the patches are, bool (N, H, W); no image without a patch.

    Returns:
        Scalar, >= 0.
    """
    layers = []
    for z in zscores:
        inside = F.interpolate(masks[:, None].to(z.dtype), z.shape[2:], mode="area")
        mean = (z * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))
        layers.append(mean.abs().mean())
    return torch.stack(layers).mean()


class OverActivation:
    """L_OZ of a calibrated network over its shallow taps, to be minimised (Eq. 13).

    Args:
        calibration: statistics; it need not be fitted.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.taps = calibration.header.defense.shallow
        self._mean = {tap: torch.from_numpy(calibration.mean[tap]) for tap in self.taps}
        self._std = {tap: torch.from_numpy(calibration.std[tap]) for tap in self.taps}

    def __call__(self, scene: Scene) -> Tensor:
        scores = (
            zscore(scene.features[tap].float(), self._mean[tap], self._std[tap])
            for tap in self.taps
        )
        return over_activation(scores, scene.masks)

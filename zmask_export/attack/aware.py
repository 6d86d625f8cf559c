"""Defense-aware attacks (Section 4.4): Adv-Mask and Adv-Flag, against the defense as it is deployed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.placement import grid_targets
from zmask_export.attack.scene import Scene
from zmask_export.attack.settings import Aware
from zmask_export.defense import fusion
from zmask_export.defense.zmask import Heatmaps


def mask_evasion(soft: Tensor, target: Tensor) -> Tensor:
    """-BCE(M~, M) of Eq. 6, the mean over images and pixels: low where the soft mask errs.

    Args:
        soft: M~ (N, 1, HR, WR) in (0, 1).
        target: 1 where the patch is, float (N, 1, HR, WR).
    """
    return -F.binary_cross_entropy(soft, target)


def flag_evasion(score: Tensor, threshold: Tensor) -> Tensor:
    """-BCE(sigmoid(d - lambda0), 1) = log sigmoid(d - lambda0), the mean over images: low where
    d < lambda0, so that no flag is raised.

    Args:
        score: d (N,).
        threshold: lambda0, a scalar.
    """
    return F.logsigmoid(score - threshold).mean()


class DefenseEvasion:
    """What Adv-Mask or Adv-Flag adds to the attack, to be minimised (Eq. 6).

    Args:
        calibration: a fitted calibration.
        aware: the soft mask or the flag.
        images: how many images of a batch, from its first on, estimate the expectation of Eq. 6; None
            takes all. The cascade costs a few times what the network does.

    Raises:
        CalibrationError: the calibration is not fitted.
    """

    def __init__(self, calibration: Calibration, aware: Aware, images: int | None = None) -> None:
        parameters, threshold = calibration.require_fitted()
        defense = calibration.header.defense
        self.taps = defense.taps
        self.aware = aware
        self.images = images
        self._heatmaps = Heatmaps.of(calibration, "deployed")
        self._parameters = torch.from_numpy(parameters)
        self._threshold = torch.tensor(threshold)

    def __call__(self, scene: Scene) -> Tensor:
        picked = slice(self.images)
        maps = self._heatmaps({tap: scene.features[tap][picked].float() for tap in self.taps})
        soft = fusion.soft_mask(maps["shallow"], maps["deep"], self._parameters)
        if self.aware == "mask":
            target = grid_targets(scene.masks[picked], self._heatmaps.defense.grid)
            return mask_evasion(soft, target)
        return flag_evasion(fusion.score(maps["shallow"], maps["deep"], soft), self._threshold)

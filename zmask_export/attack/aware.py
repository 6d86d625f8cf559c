"""Defense-aware attacks (Section 4.4): Adv-Mask and Adv-Flag, against the defense as it is deployed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

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
            takes all. The cascade costs several times what the network does.

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
        losses = []
        for index in range(len(scene.masks[: self.images])):
            features = {tap: scene.features[tap][index : index + 1].float() for tap in self.taps}
            # A cascade's intermediate maps take a gigabyte an image; they are computed again in the
            # backward pass instead of being kept for the whole batch.
            loss = checkpoint(
                self._image_loss,
                features,
                scene.masks[index : index + 1],
                use_reentrant=False,
                preserve_rng_state=False,
            )
            losses.append(loss)
        return torch.stack(losses).mean()

    def _image_loss(self, features: dict[str, Tensor], mask: Tensor) -> Tensor:
        maps = self._heatmaps(features)
        soft = fusion.soft_mask(maps["shallow"], maps["deep"], self._parameters)
        if self.aware == "mask":
            return mask_evasion(soft, grid_targets(mask, self._heatmaps.defense.grid))
        return flag_evasion(fusion.score(maps["shallow"], maps["deep"], soft), self._threshold)

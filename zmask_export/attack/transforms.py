"""Appearance changes of a patch: expectation over transformations (Athalye et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Appearance:
    """Ranges of the random changes. The paper gives none; these follow its authors' public code.

    Attributes:
        scale: smallest and largest size factor.
        brightness: standard deviation of an additive offset, share of the range.
        contrast: standard deviation of a factor around 1.
        noise: largest standard deviation of pixel noise, share of the range.
    """

    scale: tuple[float, float] = (0.8, 1.2)
    brightness: float = 0.07
    contrast: float = 0.1
    noise: float = 0.07


def vary(patch: Tensor, appearance: Appearance, rng: np.random.Generator) -> Tensor:
    """One randomly changed copy of a patch (3, h, w), clamped to [0, 1]. Gradients flow."""
    contrast = 1 + appearance.contrast * rng.standard_normal()
    brightness = appearance.brightness * rng.standard_normal()
    deviation = appearance.noise * rng.random()
    noise = torch.from_numpy(rng.standard_normal(tuple(patch.shape), dtype=np.float32))
    middle = patch.mean()
    changed = (patch - middle) * contrast + middle + brightness + deviation * noise
    return changed.clamp(0, 1)

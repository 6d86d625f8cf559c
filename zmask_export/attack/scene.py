"""What the network makes of a batch of attacked images: all that a loss may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from zmask_export.attack.placement import Placement


class Adversarial(Protocol):
    """L_adv-eff of one batch (B): what the attack wants of the network's outputs."""

    @property
    def loss(self) -> Tensor:
        """How far the attack has come, a scalar to report."""

    def direction(self, patch: Tensor) -> Tensor:
        """g_adv, (3, h, w) of length 1 (or 0), to descend along; the graph is kept."""


@dataclass(frozen=True)
class Scene:
    """One step's batch.

    Attributes:
        adversarial: what the attack wants of it.
        features: tap to activations (N, C, h, w), for the taps that a loss asks for.
        masks: where the patches are, bool (N, H, W).
    """

    adversarial: Adversarial
    features: dict[str, Tensor]
    masks: Tensor


class Evasion(Protocol):
    """A loss that weakens what the defense sees; a scalar to be minimised.

    Attributes:
        taps: the activations that it needs.
    """

    taps: tuple[str, ...]

    def __call__(self, scene: Scene) -> Tensor: ...


class Victim(Protocol):
    """A network under attack and what its images should give."""

    def scene(
        self,
        picked: Sequence[int],
        patched: Tensor,
        places: Sequence[Placement],
        rng: np.random.Generator,
    ) -> Scene | None:
        """Run the network on some of its images with a patch in each.

        Args:
            picked: indices of N samples.
            patched: their images, float32 (N, 3, H, W) in [0, 1].
            places: where the patches are.
            rng: source of randomness, for networks whose losses need one.

        Returns:
            The scene, of images that count only; None where none of them does.
        """

"""What the network makes of a batch of attacked images: all that a loss may look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """One step's batch.

    Attributes:
        logits: (N, C, H, W).
        features: tap to activations (N, C, h, w), for the taps that a loss asks for.
        labels: int64 (N, H, W), IGNORE where unlabelled.
        masks: where the patches are, bool (N, H, W).
    """

    logits: Tensor
    features: dict[str, Tensor]
    labels: Tensor
    masks: Tensor


class Evasion(Protocol):
    """A loss that weakens what the defense sees; a scalar to be minimised.

    Attributes:
        taps: the activations that it needs.
    """

    taps: tuple[str, ...]

    def __call__(self, scene: Scene) -> Tensor: ...

"""FPDA, the Fast Patch Detection Algorithm (Rossolini et al. 2022): HN on the mean of the channels."""

from __future__ import annotations

from torch import Tensor, nn

from zmask_export.defense.baselines.deviation import deviation, require_statistics


def compress(features: Tensor) -> Tensor:
    """The channel mean of activations (N, C, h, w), as (N, h, w)."""
    return features.mean(dim=1)


class Fpda(nn.Module):
    """Score of an image: the mean of |(hbar - mu) / sigma| over all positions of the channel mean hbar.

    A position that never varied on clean images counts as 0. An activation that is not finite makes the
    score of its image not finite.

    Args:
        mean: mu of every position on clean images, float32 (h, w).
        std: sigma of every position, float32 (h, w), non-negative.
        positive: count over-activation only: max(0, z) in the place of |z|.

    Raises:
        ShapeError: the statistics do not belong together.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, *, positive: bool = False) -> None:
        super().__init__()
        require_statistics(mean, std, 2)
        self.positive = positive
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, features: Tensor) -> Tensor:
        """Activations (N, C, h, w) of the layer to scores (N,), >= 0.

        Raises:
            ShapeError: the activations are not of the shape that was measured.
        """
        z = deviation(compress(features), self.mean, self.std)
        return (z.clamp(min=0) if self.positive else z.abs()).mean(dim=1)

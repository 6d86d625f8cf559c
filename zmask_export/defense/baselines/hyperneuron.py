"""HN, the HyperNeuron detector (Co et al. 2021): the mean deviation of all neurons of one layer."""

from __future__ import annotations

from torch import Tensor, nn

from zmask_export.defense.baselines.deviation import deviation, require_statistics


class HyperNeuron(nn.Module):
    """Score of an image: the mean of |(h - mu) / sigma| over all neurons of a layer.

    A neuron that never varied on clean images counts as 0. An activation that is not finite makes the
    score of its image not finite.

    Args:
        mean: mu of every neuron on clean images, float32 (C, h, w).
        std: sigma of every neuron, float32 (C, h, w), non-negative.

    Raises:
        ShapeError: the statistics do not belong together.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        require_statistics(mean, std, 3)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, features: Tensor) -> Tensor:
        """Activations (N, C, h, w) of the layer to scores (N,), >= 0.

        Raises:
            ShapeError: the activations are not of the shape that was measured.
        """
        return deviation(features, self.mean, self.std).abs().mean(dim=1)

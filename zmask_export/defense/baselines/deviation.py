"""The z-score of every position, which HN and FPDA have in common."""

from __future__ import annotations

from torch import Tensor

from zmask_export.defense.zscore import zscore
from zmask_export.errors import ShapeError


def deviation(h: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(h - mu) / sigma with a mu and a sigma for every element of an image; 0 where sigma is 0.

    Args:
        h: activations (N, ...).
        mean: mu, of the shape of one image's activations.
        std: sigma, of the same shape, non-negative.

    Returns:
        z-scores, flat: (N, number of elements of an image).

    Raises:
        ShapeError: the activations are not of the shape that was measured.
    """
    if h.shape[1:] != mean.shape:
        raise ShapeError(
            f"The statistics are of activations {tuple(mean.shape)}, these are {tuple(h.shape[1:])}.",
            fix="Measure the statistics at this layer and this input size.",
        )
    # To the z-score an element is a channel with one value an image.
    return zscore(h.flatten(1)[:, :, None, None], mean.flatten(), std.flatten()).flatten(1)


def require_statistics(mean: Tensor, std: Tensor, ndim: int) -> None:
    """Refuse statistics that do not belong together.

    Raises:
        ShapeError: not ``ndim`` dimensions, or a mean and a deviation of different shapes.
    """
    if mean.ndim != ndim or mean.shape != std.shape:
        raise ShapeError(
            f"Mean and deviation of shapes {tuple(mean.shape)} and {tuple(std.shape)} are no "
            f"statistics of {ndim} dimensions.",
            fix="Measure both on the same layer.",
        )

"""Running per-channel moments in float64, mergeable (Chan, Golub & LeVeque 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.errors import ShapeError


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of C channels.

    Attributes:
        count: values seen per channel.
        mean: float64 (C,).
        m2: sum of (x - mean)^2, float64 (C,).
    """

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def empty(cls, channels: int) -> Moments:
        """Moments of nothing."""
        return cls(0, np.zeros(channels), np.zeros(channels))

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """Moments over N, H, W of a batch (N, C, H, W), in one pass over its values.

        Values are shifted by one of their own channel first: nothing cancels, and a constant channel
        has a variance of exactly 0.

        Raises:
            ShapeError: ``x`` is no (N, C, H, W) tensor, or is empty.
        """
        if x.ndim != 4 or not x.numel():
            raise ShapeError(
                f"Moments are taken over a batch (N, C, H, W), got {tuple(x.shape)}.",
                fix="Tap a layer that gives maps.",
            )
        total = torch.zeros(x.shape[1], dtype=torch.float64)
        squares = torch.zeros(x.shape[1], dtype=torch.float64)
        shift = x[0, :, 0, 0].double()
        for image in x:
            values = image.flatten(1) - shift[:, None]  # float64, and x stays as it is
            total += values.sum(1)
            squares += torch.linalg.vecdot(values, values)
        count = x.numel() // x.shape[1]
        mean = total / count
        m2 = (squares - total * mean).clamp_(min=0)
        return cls(count, (mean + shift).numpy(), m2.numpy())

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of values together.

        Raises:
            ShapeError: another number of channels.
        """
        if self.mean.shape != other.mean.shape:
            raise ShapeError(
                f"Moments of {self.mean.size} and {other.mean.size} channels do not merge.",
                fix="Merge moments of one layer only.",
            )
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta**2 * (self.count * other.count / count)
        return Moments(count, mean, m2)

    def std(self) -> NDArray[np.float64]:
        """Population standard deviation (C,); 0 for a channel that never varied."""
        if not self.count:
            return np.zeros_like(self.m2)
        deviation = np.sqrt(self.m2 / self.count)
        # Below float32's resolution of the mean a deviation is rounding noise: the channel is dead.
        noise = np.abs(self.mean) * float(np.finfo(np.float32).eps)
        return np.where(deviation <= noise, 0.0, deviation)

"""Percentile bootstrap over images: how far a number would move on other images of the same kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zmask_export.errors import UsageError
from zmask_export.spec import Spec

Weights = NDArray[np.float64]
"""How often each image is drawn, (B, n); every row sums to n."""

LEVEL = 0.95
"""Part of the resamples that an interval holds."""


class Estimate(Spec):
    """A number with its bootstrap interval.

    Attributes:
        value: on the images as they are; None where it is not defined (a division by zero).
        low, high: the interval's ends; None where too few resamples define the number.
        images: how many images it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    images: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class Resamples:
    """One set of resamples, shared by all numbers of the same images, so that they move together.

    Args:
        images: how many images n.
        count: how many resamples B.
        seed: of the draws.

    Raises:
        UsageError: no image or no resample.
    """

    def __init__(self, images: int, count: int = 1000, seed: int = 0) -> None:
        if images < 1 or count < 1:
            raise UsageError(
                f"{count} resamples of {images} images give no interval.",
                fix="Give at least one image and one resample.",
            )
        rng = np.random.default_rng((seed, images))
        drawn = rng.multinomial(images, np.full(images, 1 / images), size=count)
        self.images = images
        # The first row is the images as they are: value and resamples come from one formula.
        self._weights: Weights = np.vstack([np.ones(images), drawn])

    def estimate(self, statistic: Callable[[Weights], NDArray[np.float64]]) -> Estimate:
        """Value and interval of a statistic.

        Args:
            statistic: weights (B, n) to one value a row (B,); NaN where it is not defined.
        """
        return self.summary(self.values(statistic))

    def values(self, statistic: Callable[[Weights], NDArray[np.float64]]) -> NDArray[np.float64]:
        """A statistic's values, first on the images as they are, then on every resample."""
        return statistic(self._weights)

    def summary(self, values: NDArray[np.float64]) -> Estimate:
        """Value and interval of numbers like those that :meth:`values` gives, or computed from them."""
        drawn = values[1:]
        defined = drawn[np.isfinite(drawn)]
        low = high = None
        # Fewer would give the interval of another, better behaved number.
        if defined.size >= LEVEL * drawn.size:
            tail = 50 * (1 - LEVEL)
            low, high = (float(v) for v in np.percentile(defined, [tail, 100 - tail]))
        value = float(values[0]) if np.isfinite(values[0]) else None
        return Estimate(value=value, low=low, high=high, images=self.images)

    def mean(self, values: NDArray[np.floating] | NDArray[np.bool_]) -> Estimate:
        """:meth:`estimate` of the mean of one value an image (n,)."""
        column = np.asarray(values, np.float64)
        return self.estimate(lambda weights: weights @ column / len(column))

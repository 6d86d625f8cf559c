"""Shares of flagged frames, with exact intervals."""

from __future__ import annotations

from scipy.stats import binomtest

from zmask_export.spec import Spec


class Rate(Spec):
    """A share of frames.

    Attributes:
        frames: how many there were.
        flagged: how many of them were flagged.
        share: flagged over frames; None of no frame.
        lower, upper: the exact (Clopper-Pearson) interval of the true share.
    """

    frames: int
    flagged: int
    share: float | None
    lower: float
    upper: float


def rate(flagged: int, frames: int, *, error: float) -> Rate:
    """The rate of ``flagged`` among ``frames``, whose interval misses the truth at most with ``error``."""
    if not frames:
        return Rate(frames=0, flagged=0, share=None, lower=0.0, upper=1.0)
    interval = binomtest(flagged, frames).proportion_ci(1 - error, method="exact")
    return Rate(
        frames=frames,
        flagged=flagged,
        share=flagged / frames,
        lower=float(interval.low),
        upper=float(interval.high),
    )

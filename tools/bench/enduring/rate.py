"""The share of clean frames that is flagged, held against the false-positive rate that was calibrated.

Pictures are dealt at random into a calibration half and a stream half; each has the same number of views.
The threshold is chosen on the first half's scores, the flags are counted on the second. Had the deal fallen
otherwise, another threshold and another share would have come out: dealing all scores that were seen again,
thousands of times, says how the share is distributed where the stream does to its frames what the
calibration did to its own. That is a permutation test, exact because the deal was random. It takes in that
views of a picture and neighbours in a video resemble each other, and that the threshold is itself an
estimate, neither of which the binomial interval of the flagged frames does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from enduring.stream import Views
from enduring.windows import LEVEL
from zmask_export.calibrate.roc import cut_at_fpr
from zmask_export.data.images import list_images
from zmask_export.drift.rates import Rate, rate
from zmask_export.errors import DatasetError
from zmask_export.runtime.protected import Protected
from zmask_export.spec import Spec

DEALS = 4000
"""Of the permutation test."""
FEWEST = 20
"""Pictures, below which any rate fits."""

Scores = NDArray[np.float64]
"""Of pictures by views."""


class Single(Spec):
    """One view of each picture, at the threshold that the first views of the calibration give.

    ``lower`` and ``upper`` are those of the beta-binomial distribution, which the number of flagged frames
    then has, whatever that of the scores is: a threshold that ``k`` of ``n`` scores exceed is exceeded by
    another one with a probability from Beta(k + 1, n - k) (Vovk, *Conditional Validity of Inductive
    Conformal Predictors*, ACML 2012).
    """

    frames: int
    flagged: int
    lower: float
    upper: float


class FlagRate(Spec):
    """What was flagged of the stream's distinct frames.

    Attributes:
        target: the false-positive rate that the threshold was chosen for.
        threshold: lambda0.
        calibration_pictures, stream_pictures, views: of the two halves.
        frames, flagged, share: distinct frames of the stream; later rounds repeat them.
        lower, upper: the 95 % interval of ``share`` by the permutation test.
        inside: whether ``share`` lies in it.
        single: the same question asked of one view a picture.
        independent: with the interval that independent frames and an exact threshold would have.
    """

    target: float
    threshold: float
    calibration_pictures: int
    stream_pictures: int
    views: int
    frames: int
    flagged: int
    share: float
    lower: float
    upper: float
    inside: bool
    single: Single
    independent: Rate


def deal(folders: Sequence[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """The images of all folders, dealt into two halves at random.

    Raises:
        DatasetError: no such folder, or too few images.
    """
    paths = [path for folder in folders for path in list_images(folder)]
    if len(paths) < FEWEST:
        raise DatasetError(
            f"{len(paths)} images give no rate.", fix=f"Give at least {FEWEST} clean images."
        )
    order = np.random.default_rng(seed).permutation(len(paths))
    middle = len(paths) // 2
    return [paths[i] for i in order[:middle]], [paths[i] for i in order[middle:]]


def score(engine: Protected, views: Views, on_frame: Callable[[int], None]) -> Scores:
    """Scores of all views, (pictures, views).

    Raises:
        ImageError: a picture cannot be read, or is of another shape than the engine's.
    """
    found = np.empty(views.distinct)
    for index in range(views.distinct):
        found[index] = engine(views.frame(index)[0]).score
        on_frame(index + 1)
    return by_picture(found, views)


def by_picture(values: NDArray[np.float64], views: Views) -> Scores:
    """One value a frame of a stream, as (pictures, views)."""
    return values.reshape(views.count, len(views.paths)).T


def threshold_for(scores: Scores, target: float) -> float:
    """lambda0 by the rule of ``fit --target-fpr``.

    Raises:
        UsageError: ``target`` is outside [0, 1).
        CalibrationError: a score is not finite.
    """
    return cut_at_fpr(scores.ravel(), scores.ravel(), target).threshold


def share_of(calibration: Scores, stream: Scores, target: float) -> float:
    """Share of the stream's scores above the threshold that the calibration's give."""
    return cut_at_fpr(calibration.ravel(), stream.ravel(), target).true_positive_rate


def permutation_interval(
    calibration: Scores, stream: Scores, target: float, seed: int = 0
) -> tuple[float, float]:
    """Shares that other deals of the same pictures give, without the outer twentieth."""
    everything, count = np.concatenate([calibration, stream]), len(calibration)
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(DEALS):
        dealt = everything[rng.permutation(len(everything))]
        shares.append(share_of(dealt[:count], dealt[count:], target))
    tail = (1 - LEVEL) / 2
    return (
        float(np.quantile(shares, tail, method="lower")),
        float(np.quantile(shares, 1 - tail, method="higher")),
    )


def single_view(
    calibration: NDArray[np.float64], stream: NDArray[np.float64], target: float
) -> Single:
    """The test of one score a picture."""
    n, m = calibration.size, stream.size
    threshold = threshold_for(calibration, target)
    above = int((calibration > threshold).sum())
    lower, upper = betabinom.interval(LEVEL, m, above + 1, n - above)
    return Single(
        frames=m,
        flagged=int((stream > threshold).sum()),
        lower=float(lower) / m,
        upper=float(upper) / m,
    )


def judge(calibration: Scores, stream: Scores, flags: NDArray[np.bool_], target: float) -> FlagRate:
    """The flags of a stream, whole, against the rate.

    Args:
        calibration, stream: scores of either half.
        flags: of the stream's frames, as the engine gave them.
        target: the false-positive rate.
    """
    lower, upper = permutation_interval(calibration, stream, target)
    share = float(flags.mean())
    return FlagRate(
        target=target,
        threshold=threshold_for(calibration, target),
        calibration_pictures=len(calibration),
        stream_pictures=len(stream),
        views=stream.shape[1],
        frames=flags.size,
        flagged=int(flags.sum()),
        share=share,
        lower=lower,
        upper=upper,
        inside=lower <= share <= upper,
        single=single_view(calibration[:, 0], stream[:, 0], target),
        independent=rate(int(flags.sum()), flags.size, error=1 - LEVEL),
    )

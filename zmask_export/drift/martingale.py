"""A conformal test martingale: evidence against "these scores are still the calibrated ones".

Each new score gets a p-value: its rank among the calibration's scores and those of the stream so far,
ties broken by chance. As long as all of them come from one distribution, the p-values are independent
and uniform, whatever that distribution is. A gambler who bets against that, and whose stakes multiply by
what a fair game pays, then gets rich with little luck only: by Ville's inequality the wealth ever
reaches 1 / alpha with a probability of at most alpha, over a stream of any length.

The stream's own scores join the sample because p-values against the calibration alone share its luck:
they are not independent, and over a long stream the wealth would grow without any drift. Once the
sample is full, a member that chance alone picks leaves for each that joins, so that it stays a fair one.

Sources: Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World* (2005), chapter 7; Volkhonskiy
et al., *Inductive Conformal Martingales for Change-Point Detection* (COPA 2017). The bets are the simple
jumper of Vovk et al., *Retrain or Not Retrain: Conformal Test Martingales for Change-Point Detection*
(COPA 2021).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from zmask_export.errors import CalibrationError, InputError, UsageError

SLOPES = (0.25, 1.0, 2.0)
"""How boldly is bet: the small ones find a slow drift, the large ones a jump within some ten frames."""
JUMP = 0.001
"""Share of the wealth that is dealt out evenly again at each frame: what keeps every bet alive."""
CAPACITY = 10_000
"""Scores that are held at most, where the calibration has not more itself."""
DIGITS = 5
"""Significant digits of a score, here as in the calibration file."""


def rounded(score: float) -> float:
    """A score as calibration files keep it, so that equal ones are equal."""
    return float(f"{score:.{DIGITS}g}")


def _bets() -> np.ndarray:
    # Slopes along p (scores rose or fell) and along |2 p - 1| (they spread or narrowed), which is uniform
    # too; and one bet on nothing. float64 (2, 1 + 4 * len(SLOPES)).
    signed = [sign * slope for slope in SLOPES for sign in (1, -1)]
    none = [0.0] * len(signed)
    return np.array([[0.0, *signed, *none], [0.0, *none, *signed]])


class DriftTest:
    """Takes one score after the other; says when they are no longer the calibrated ones.

    Feed it scores of clean frames that do not depend on each other, such as every hundredth of a video.

    Args:
        reference: scores of the calibration, at least one.
        false_alarms: alpha, the largest probability that a stream of any length without drift
            ever raises the alarm; in (0, 1).
        seed: of the chance that breaks ties and picks what leaves the sample.
        capacity: scores held at most; the reference's number where that is more.

    Attributes:
        frames: scores taken.
        p: of the last score, in [0, 1); small where it is high among those before.
        log_wealth: natural logarithm of the wealth now; 0 at the start.
        peak: the largest that it was.
        alarm: number of the frame that raised the alarm, from 1; None before that. It stays.

    Raises:
        UsageError: ``false_alarms`` is outside (0, 1).
        CalibrationError: the reference is empty or holds a score that is not finite.
    """

    def __init__(
        self,
        reference: Sequence[float],
        *,
        false_alarms: float = 0.01,
        seed: int = 0,
        capacity: int = CAPACITY,
    ) -> None:
        if not 0 < false_alarms < 1:
            raise UsageError(
                f"A false-alarm rate of {false_alarms} is not in (0, 1).",
                fix="Give for example 0.01.",
            )
        if not reference or not all(map(math.isfinite, reference)):
            raise CalibrationError(
                "The calibration's clean scores are none, or not all finite.",
                fix="Fit it again on clean images.",
            )
        self.frames = 0
        self.p = 0.5
        self.log_wealth = 0.0
        self.peak = 0.0
        self.alarm: int | None = None
        self._limit = -math.log(false_alarms)
        self._sample = sorted(map(rounded, reference))
        self._capacity = capacity
        self._chance = np.random.default_rng(seed)
        self._bets = _bets()
        self._shares = np.full(self._bets.shape[1], 1 / self._bets.shape[1])
        self._sums = np.zeros(3)  # of p, of its square, of its product with the one before

    def update(self, score: float) -> bool:
        """Take the next score; whether the alarm is raised, now or earlier.

        Raises:
            InputError: the score is not finite; nothing is changed.
        """
        if not math.isfinite(score):
            raise InputError(
                f"A score of {score} cannot be ranked.", fix="Count it among the flagged ones."
            )
        before, self.p = self.p, self._rank(rounded(score))
        self._sums += (self.p, self.p**2, self.p * before if self.frames else 0.0)
        self.frames += 1
        self._bet()
        self.peak = max(self.peak, self.log_wealth)
        if self.alarm is None and self.log_wealth >= self._limit:
            self.alarm = self.frames
        return self.alarm is not None

    @property
    def dependence(self) -> float | None:
        """Correlation of each p with the one before, about 0 of independent frames; None of under three."""
        if self.frames < 3:
            return None
        total, squares, products = self._sums.tolist()
        mean = total / self.frames
        spread = squares / self.frames - mean**2
        if spread <= 0:
            return None
        return float((products / (self.frames - 1) - mean**2) / spread)

    def _rank(self, score: float) -> float:
        """The score's p-value; the score joins the sample."""
        sample = self._sample
        first, last = bisect_left(sample, score), bisect_right(sample, score)
        above = len(sample) - last
        p = (above + self._chance.random() * (last - first + 1)) / (len(sample) + 1)
        sample.insert(last, score)
        if len(sample) > self._capacity:
            # Any member, the new one too: one that the scores had a say in would break the uniformity.
            del sample[int(self._chance.integers(len(sample)))]
        return float(p)

    def _bet(self) -> None:
        shares = (1 - JUMP) * self._shares + JUMP / self._shares.size
        uniform = np.array([self.p, abs(2 * self.p - 1)])
        # Each factor has the mean 1 over a uniform p and is never negative, as no slope exceeds 2.
        paid = shares * (1 + (uniform - 0.5) @ self._bets)
        total = float(paid.sum())
        self.log_wealth += math.log(total)
        self._shares = paid / total

"""monitor: do the scores of clean frames still come from the calibrated distribution?"""

from __future__ import annotations

import contextlib
import math
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from zmask_export.artifacts import calibration as calibrations
from zmask_export.artifacts.bundle import open_bundle
from zmask_export.artifacts.manifest import CALIBRATION_FILE
from zmask_export.drift.lines import Frame, OnBadLine, read_frames, unreadable
from zmask_export.drift.martingale import DriftTest
from zmask_export.drift.rates import Rate, rate
from zmask_export.errors import (
    CalibrationError,
    DriftError,
    FlagRateError,
    InputError,
    UsageError,
    ZMaskError,
)
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.spec import Spec

STREAM = Path("-")
RECENT = 100
"""Scores that the summary shows the quartiles of."""

Verdict = Literal["steady", "drift", "flags"]


@dataclass(frozen=True)
class MonitorOptions:
    """How to watch.

    Attributes:
        false_alarms: largest probability of ever raising the alarm without a drift.
        every: take every so manieth frame; neighbours in a video resemble each other.
        on_bad_line: what to do with a damaged line.
        until_alarm: stop reading at the alarm.
        seed: of the chance that breaks ties.
    """

    false_alarms: float = 0.01
    every: int = 1
    on_bad_line: OnBadLine = "error"
    until_alarm: bool = False
    seed: int = 0


class Quartiles(Spec):
    """Scores in three numbers."""

    lower: float
    median: float
    upper: float


class Alarm(Spec):
    """When the alarm was raised.

    Attributes:
        line: number of the line, from 1.
        image: of that line.
        tested: frames that were tested until then.
    """

    line: int
    image: str
    tested: int


class MonitorReport(Spec):
    """What ``monitor --json`` prints.

    Attributes:
        verdict: "drift" where the alarm was raised; else "flags" where more frames are flagged than the
            calibration explains; else "steady".
        false_alarms: largest probability of a "drift" over a stream of any length without one, and of
            "flags" at its end.
        threshold: lambda0 of the results.
        reference: how many of the calibration's clean scores they were compared with: those that this
            threshold does not flag.
        every: every so manieth frame was taken.
        frames: lines read.
        bad_lines: of these skipped as damaged.
        tested: frames taken that were not flagged.
        dependence: how a frame's rank correlates with that of the one before: about 0 of frames that do
            not depend on each other, as the test wants them; null of under three.
        untrusted: frames taken whose mask covers more than ``run --max-covered`` allows.
        evidence: decimal logarithm of the largest wealth of the test.
        alarm_at: the evidence that raises the alarm.
        alarm: when that was; None without.
        flags: how many of the frames taken are flagged.
        calibrated_flags: how many of the calibration's clean images this threshold flags.
        calibrated: quartiles of the reference.
        recent: of the last 100 frames tested; None of none.
    """

    verdict: Verdict
    false_alarms: float
    threshold: float
    reference: int
    every: int
    frames: int
    bad_lines: int
    tested: int
    dependence: float | None
    untrusted: int
    evidence: float
    alarm_at: float
    alarm: Alarm | None
    flags: Rate
    calibrated_flags: Rate
    calibrated: Quartiles
    recent: Quartiles | None

    @property
    def dependent(self) -> bool:
        """Whether frames depend on each other more than chance explains."""
        return self.dependence is not None and self.dependence > 3 / math.sqrt(self.tested)

    def problem(self) -> ZMaskError | None:
        """The error that stands for the verdict; None for a steady one."""
        if self.alarm is not None:
            return DriftError(
                f"The scores of clean frames have left the calibrated distribution: alarm at line "
                f"{self.alarm.line} ({self.alarm.image}), after {self.alarm.tested} frames.",
                fix="Look at the frames; if they are clean, calibrate and fit on such frames again."
                if not self.dependent
                else "Take frames that do not resemble their neighbours, with --every; if the alarm stays "
                "and the frames are clean, calibrate and fit on such frames again.",
            )
        if self.verdict == "flags":
            return FlagRateError(
                f"{self.flags.flagged} of {self.flags.frames} frames are flagged, more than the "
                f"{self.calibrated_flags.flagged} of {self.calibrated_flags.frames} of the calibration "
                "explain.",
                fix="Look at the flagged frames: attacks, or a drift beyond the threshold, which calls "
                "for a new calibration.",
            )
        return None


class _Watch:
    """What is counted along a stream, after its first frame gave the threshold."""

    def __init__(self, clean: tuple[float, ...], threshold: float, options: MonitorOptions) -> None:
        self.threshold = threshold
        self.clean = clean
        self.reference = [score for score in clean if not score > threshold]
        if not self.reference:
            raise UsageError(
                f"The results' threshold {threshold:.6g} flags every clean image of the calibration.",
                fix="Run with the calibrated threshold.",
            )
        self.test = DriftTest(self.reference, false_alarms=options.false_alarms, seed=options.seed)
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.taken = self.flagged = self.untrusted = 0

    def take(self, frame: Frame) -> bool:
        """Count a frame; whether it has just raised the alarm."""
        self.taken += 1
        self.untrusted += frame.trusted is False
        if frame.flag or frame.score is None:
            # A flagged frame is an attack until shown otherwise, and says nothing of clean ones.
            self.flagged += 1
            return False
        raised = self.test.alarm is not None
        self.recent.append(frame.score)
        return self.test.update(frame.score) and not raised


def monitor(
    source: Path,
    results: Path,
    options: MonitorOptions | None = None,
    *,
    reporter: Reporter | None = None,
) -> MonitorReport:
    """Hold the results of ``run`` against the clean scores of a calibration.

    Args:
        source: a fitted calibration file, or a bundle.
        results: JSON lines that ``run`` printed; ``-`` reads standard input as it comes.
        options: see :class:`MonitorOptions`.
        reporter: told of the alarm when it is raised.

    Raises:
        BundleError, CalibrationError: the source cannot be used.
        InputError: the results cannot be read, hold no frame, a damaged line, or two thresholds.
        UsageError: a rate outside (0, 1), or a threshold that flags the whole calibration.
    """
    options = options or MonitorOptions()
    reporter = reporter or Silent()
    clean = _clean_scores(source)
    name = "standard input" if results == STREAM else str(results)
    watch: _Watch | None = None
    alarm: Alarm | None = None
    read = bad = 0
    with _opened(results, name) as file:
        for number, frame in read_frames(file, name, on_bad=options.on_bad_line):
            read += 1
            if frame is None:
                bad += 1
                continue
            watch = watch or _Watch(clean, frame.threshold, options)
            if frame.threshold != watch.threshold:
                raise InputError(
                    f"Line {number} of {name} has the threshold {frame.threshold:.6g}, those before it "
                    f"{watch.threshold:.6g}.",
                    fix="Monitor the results of each threshold by themselves.",
                )
            if (read - bad - 1) % options.every or not watch.take(frame):
                continue
            alarm = Alarm(line=number, image=frame.image, tested=watch.test.frames)
            reporter.note(f"drift: alarm at line {number} ({frame.image})")
            if options.until_alarm:
                break
    if watch is None:
        raise InputError(f"{name} holds no frame.", fix="Give what zmask-export run printed.")
    return _report(watch, alarm, options, read, bad)


def _clean_scores(source: Path) -> tuple[float, ...]:
    """Scores of the clean images that a calibration was fitted on."""
    if source.is_dir():
        checked = open_bundle(source, lambda _: (CALIBRATION_FILE,))
        calibration = calibrations.parse(checked.read(CALIBRATION_FILE), source / CALIBRATION_FILE)
    else:
        calibration = calibrations.load(source)
    calibration.require_fitted()
    if calibration.header.fit is None:
        raise CalibrationError(
            f"The calibration {source} keeps no scores of clean images.",
            fix="Run zmask-export fit on it again.",
        )
    return calibration.header.fit.clean_scores


@contextlib.contextmanager
def _opened(results: Path, name: str) -> Iterator[BinaryIO]:
    if results == STREAM:
        if sys.stdin is None:  # as in a service that was started without
            raise unreadable(name, OSError("it is closed"))
        yield sys.stdin.buffer
        return
    try:
        file = results.open("rb")
    except OSError as exc:
        raise unreadable(name, exc) from exc
    with file:
        yield file


def _report(
    watch: _Watch, alarm: Alarm | None, options: MonitorOptions, read: int, bad: int
) -> MonitorReport:
    flags = rate(watch.flagged, watch.taken, error=options.false_alarms)
    before = rate(
        len(watch.clean) - len(watch.reference), len(watch.clean), error=options.false_alarms
    )
    # Of equal true rates, one of two intervals must miss for this: a tail each, so false_alarms together.
    above = flags.lower > before.upper
    return MonitorReport(
        verdict="drift" if alarm is not None else "flags" if above else "steady",
        false_alarms=options.false_alarms,
        threshold=watch.threshold,
        reference=len(watch.reference),
        every=options.every,
        frames=read,
        bad_lines=bad,
        tested=watch.test.frames,
        dependence=watch.test.dependence,
        untrusted=watch.untrusted,
        evidence=watch.test.peak / math.log(10),
        alarm_at=-math.log10(options.false_alarms),
        alarm=alarm,
        flags=flags,
        calibrated_flags=before,
        calibrated=_quartiles(watch.reference),
        recent=_quartiles(watch.recent) if watch.recent else None,
    )


def _quartiles(scores: list[float] | deque[float]) -> Quartiles:
    lower, median, upper = np.quantile(list(scores), (0.25, 0.5, 0.75)).tolist()
    return Quartiles(lower=lower, median=median, upper=upper)

"""What a run found, and whether the bundle stood it."""

from __future__ import annotations

from collections.abc import Iterator

from enduring.rate import FlagRate
from enduring.resources import Handles, Memory
from enduring.times import Latency, Quantiles
from enduring.windows import Trend
from zmask_export.spec import Spec


class Limits(Spec):
    """What may grow over a run.

    Attributes:
        latency: share that the windows' p99 may gain.
        memory_mb: megabytes that the last half may gain.
    """

    latency: float = 0.1
    memory_mb: float = 2.0


class Record(Spec):
    """The outcome of a run.

    Attributes:
        runner: what ran the bundle.
        threads: that shared the engine.
        seconds: that the run took after its warm-up.
        dealt: frames that were handed to the threads, those of the warm-up too.
        lost: of these, the ones that never came back.
        frames: results after the warm-up.
        frames_per_second: that came back.
        hours: that ``frames`` are at ``fps``.
        fps: the frame rate of a camera that would deliver them.
        errors, uncaught: frames that raised an error of ours, and any other one.
        error_texts: what the errors said, and how many said it.
        distinct, repeats, differences: different frames; results of a frame that was run before; those of
            them that were not bit for bit the first one.
        flagged: of ``frames``.
        wall, processor: milliseconds a call, by the clock and of the calling thread alone, which another
            process on its core does not lengthen. None where nothing came back.
        memory, descriptors, process_threads: of the process.
        limits: what may grow.
        flag_rate: None of noise, and where not every frame of the stream was run.
    """

    runner: str
    threads: int
    seconds: float
    dealt: int
    lost: int
    frames: int
    frames_per_second: float
    hours: float
    fps: float
    errors: int
    uncaught: int
    error_texts: dict[str, int]
    distinct: int
    repeats: int
    differences: int
    flagged: int
    wall: Latency | None
    processor: Latency | None
    memory: Memory
    descriptors: Handles
    process_threads: Handles
    limits: Limits
    flag_rate: FlagRate | None

    @property
    def faults(self) -> list[str]:
        """Why the bundle did not stand it; empty where it did."""
        found = {
            "no frame came back": not self.frames,
            "frames were lost": self.lost,
            "frames raised errors": self.errors + self.uncaught,
            "results differed": self.differences,
            "the latency grows": self.wall is not None and self.wall.verdict == "grows",
            "the processor time grows": self.processor is not None
            and self.processor.verdict == "grows",
            "the memory grows": self.memory.verdict == "grows",
            "the open files grow": self.descriptors.verdict == "grows",
            "the threads grow": self.process_threads.verdict == "grows",
            "the flag rate is not the calibrated one": self.flag_rate is not None
            and not self.flag_rate.inside,
        }
        return [text for text, fault in found.items() if fault]


def lines(record: Record) -> Iterator[str]:
    """The outcome for people, line by line."""
    r = record
    yield (
        f"{r.runner}, {r.threads} threads: {r.frames} frames in {r.seconds:.1f} s "
        f"({r.frames_per_second:.1f} a second), {r.hours:.3f} h at {r.fps:g} frames a second"
    )
    yield (
        f"answers: {r.dealt} dealt out with the warm-up, {r.lost} lost, {r.errors} errors, "
        f"{r.uncaught} uncaught; {r.distinct} different frames, {r.repeats} repeats, "
        f"{r.differences} differences"
    )
    yield from (f"  {count} x {text}" for text, count in r.error_texts.items())
    for name, latency in (("latency", r.wall), ("processor time", r.processor)):
        if latency is not None:
            yield from _latency(name, latency, r.limits.latency)
    yield from _memory(r.memory, r.limits.memory_mb)
    for name, handles in (("open files", r.descriptors), ("threads", r.process_threads)):
        yield (
            f"{name}: at the fewest {handles.first} in the first window, {handles.last} in the last; "
            f"at most {handles.most}: {handles.verdict}"
        )
    if r.flag_rate is not None:
        yield from _rate(r.flag_rate, r)
    yield f"failed: {', '.join(r.faults)}" if r.faults else "stood it"


def _latency(name: str, latency: Latency, limit: float) -> Iterator[str]:
    parts = {"whole": latency.whole, "first tenth": latency.first_tenth}
    parts["last tenth"] = latency.last_tenth
    yield f"{name}, ms: " + "; ".join(
        f"{part} {_quantiles(found)}" for part, found in parts.items() if found is not None
    )
    if latency.growth is not None and latency.p99_last_over_first is not None:
        yield (
            f"  p99 last over first {latency.p99_last_over_first:.3f}; over twelve windows "
            f"{_percent(latency.growth)}, at most {limit:+.1%}: {latency.verdict}; "
            f"largest {latency.largest:.1f}"
        )


def _quantiles(found: Quantiles) -> str:
    return f"p50 {found.p50:.1f} p99 {found.p99:.1f} p99.9 {found.p999:.1f}"


def _percent(growth: Trend) -> str:
    return f"{growth.gained:+.1%} ({growth.lower:+.1%} to {growth.upper:+.1%})"


def _memory(memory: Memory, limit: float) -> Iterator[str]:
    yield (
        f"memory: {memory.loaded_mb:.1f} MB loaded, {memory.start_mb:.1f} at the start, "
        f"{memory.end_mb:.1f} at the end, at most {memory.highest_mb:.1f}"
    )
    slope = memory.slope_mb_per_minute
    if slope is not None:
        yield (
            f"  {slope.gained:+.3f} MB a minute ({slope.lower:+.3f} to {slope.upper:+.3f}); last half "
            f"{memory.last_half_mb:+.2f} MB, at most {limit:+.2f}: {memory.verdict}"
        )


def _rate(rate: FlagRate, record: Record) -> Iterator[str]:
    yield (
        f"flags: threshold {rate.threshold:.6g} for {rate.target:.1%} on {rate.calibration_pictures} "
        f"clean pictures; on {rate.stream_pictures} others, {rate.views} views each, {rate.flagged} of "
        f"{rate.frames} = {rate.share:.2%}, "
        + ("inside" if rate.inside else "outside")
        + f" the 95 % interval by permutation of the pictures, {rate.lower:.2%} to {rate.upper:.2%}"
    )
    single, independent = rate.single, rate.independent
    yield (
        f"  one view a picture: {single.flagged} of {single.frames} "
        f"= {single.flagged / single.frames:.2%}, beta-binomial {single.lower:.2%} to {single.upper:.2%}; "
        "were frames independent: "
        f"{independent.lower:.2%} to {independent.upper:.2%} (Clopper-Pearson)"
    )
    yield f"  all rounds: {record.flagged} of {record.frames} = {record.flagged / record.frames:.2%}"

"""Whether a loaded bundle stands long use: latency, memory, answers, and flags of clean frames.

    python tools/bench/endurance.py engines/icnet --threads 8 --seconds 60
    python tools/bench/endurance.py engines/icnet --threads 1 --images clean/ --fpr 0.05

One engine, shared by all threads, runs the same frames over and over, one after the other without waiting;
by default as many as a camera delivers in an hour at ``--fps``. Every result is compared bit for bit with
the first one of its frame. The frames are noise, every second one with a threshold of 0, so that a gated
engine takes its second pass; or with ``--images`` seeded views of clean pictures (cut, mirrored, lit
otherwise). Then the pictures are first dealt into halves: one chooses a threshold for ``--fpr``, the other
is the stream, and its flag rate is held against that of other deals.

Times and looks at the process are kept in memory that does not grow, by slices of the run after its
warm-up. Whether p99 grows is said by the Theil-Sen line through that of twelve windows, with its 95 %
interval; whether memory does, by its last half. Ends with 1 where a frame was lost, failed or differed,
something grew, or the flag rate is outside.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from enduring.rate import FlagRate, Scores, by_picture, deal, judge, score, threshold_for
from enduring.record import Limits, Record, lines
from enduring.resources import Resources
from enduring.stream import Noise, Stream, Views
from enduring.windows import WINDOWS, bounds
from enduring.work import Load, Tally, run
from measuring.command import exit_code

from zmask_export import Protected, load
from zmask_export.calibrate.roc import require_rate
from zmask_export.cli.options import BACKENDS
from zmask_export.errors import UsageError

HOUR = 3600
_PATH = click.Path(path_type=Path)


def endure(
    engine: Protected,
    stream: Stream,
    under: Load,
    *,
    fps: float = 10.0,
    limits: Limits | None = None,
    calibration: tuple[Scores, float] | None = None,
) -> Record:
    """Put an engine under a load, and sum up.

    Args:
        engine, stream, under: what, on what, how much.
        fps: of the camera that the frames might come from.
        limits: what may grow.
        calibration: scores (pictures, views) that the threshold of ``stream``, which are views, was
            chosen on, and its false-positive rate.
    """
    limits = limits or Limits()
    course, tally, resources = run(engine, stream, under, _say_window)
    seconds = max(tally.ended - course.started, 1e-9) if tally.answered else 0.0
    rate = None
    if calibration is not None and isinstance(stream, Views) and tally.seen.all():
        rate = _rate(tally, stream, *calibration)
    return Record(
        runner=engine.runner.name,
        threads=under.threads,
        seconds=seconds,
        dealt=course.dealt,
        lost=course.dealt - tally.returned,
        frames=tally.answered,
        frames_per_second=tally.answered / seconds if seconds else 0.0,
        hours=tally.answered / fps / HOUR,
        fps=fps,
        errors=tally.errors,
        uncaught=tally.uncaught,
        error_texts=dict(tally.texts),
        distinct=tally.distinct,
        repeats=tally.repeats,
        differences=tally.differences,
        flagged=tally.flagged,
        wall=tally.wall.latency(limits.latency),
        processor=tally.processor.latency(limits.latency),
        memory=resources.memory(max(seconds, 1e-9) / 60, limits.memory_mb),
        descriptors=resources.descriptors(),
        process_threads=resources.threads(),
        limits=limits,
        flag_rate=rate,
    )


def _rate(tally: Tally, stream: Views, calibration: Scores, target: float) -> FlagRate:
    # A score that is no number raises the flag: it counts as higher than any.
    scores = np.where(np.isfinite(tally.scores), tally.scores, np.finfo(np.float64).max)
    return judge(calibration, by_picture(scores, stream), tally.flags, target)


def _say_window(over: int, tally: Tally, resources: Resources) -> None:
    last = tally.wall.quantiles(*bounds(WINDOWS)[over - 1])
    click.echo(
        f"{over}/{WINDOWS}: {tally.answered} frames, {resources.end:.1f} MB"
        + (f", p99 {last.p99:.1f} ms" if last is not None else ""),
        err=True,
    )


def calibrated(
    engine: Protected, folders: Sequence[Path], views: int, seed: int, target: float
) -> tuple[Views, Scores]:
    """A stream of one half of the pictures with the threshold of the other, and that half's scores.

    Raises:
        DatasetError, ImageError, CalibrationError, UsageError: see ``enduring.rate``.
    """
    require_rate(target)
    ours, others = (Views(paths, views, seed) for paths in deal(folders, seed))
    with click.progressbar(
        length=ours.distinct, label="calibrating", file=sys.stderr, update_min_steps=10
    ) as bar:
        scores = score(engine, ours, lambda _: bar.update(1))
    return replace(others, threshold=threshold_for(scores, target)), scores


@click.command(context_settings={"show_default": True})
@click.argument("bundle", type=_PATH)
@click.option("--threads", default=8, type=click.IntRange(1), help="That share the engine.")
@click.option(
    "--frames", type=click.IntRange(1), help="After which it ends. Default: an hour at --fps."
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="In place of --frames.")
@click.option(
    "--fps", default=10.0, type=click.FloatRange(0, min_open=True), help="Of the camera stood for."
)
@click.option(
    "--warm-up", default=25, type=click.IntRange(0), help="Frames a thread before, not counted."
)
@click.option("--images", multiple=True, type=_PATH, help="Folder of clean images; repeatable.")
@click.option("--fpr", default=0.05, help="False-positive rate to choose the threshold for.")
@click.option("--views", default=4, type=click.IntRange(1), help="Of each image.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of the halves and the views.")
@click.option(
    "--latency-growth", default=0.1, type=click.FloatRange(0), help="That p99 may gain, a share."
)
@click.option(
    "--memory-growth", default=2.0, type=click.FloatRange(0), help="MB that the last half may gain."
)
@click.option("--backend", default="auto", type=click.Choice(BACKENDS))
@click.option("--runner-threads", default=1, type=click.IntRange(0), help="Of ONNX Runtime.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(bundle: Path, backend: Any, runner_threads: int, as_json: bool, **options: Any) -> int:
    """Share a bundle's engine between threads for long."""
    frames, seconds, fps = options["frames"], options["seconds"], options["fps"]
    if frames is not None and seconds is not None:
        raise UsageError("--frames and --seconds exclude each other.", fix="Leave one of them out.")
    under = Load(
        threads=options["threads"],
        frames=frames if frames or seconds else max(round(HOUR * fps), 1),
        seconds=seconds or float("inf"),
        warm_up=options["warm_up"],
    )
    limits = Limits(latency=options["latency_growth"], memory_mb=options["memory_growth"])
    busy = os.getloadavg()[0]
    with load(bundle, backend=backend, threads=runner_threads) as engine:
        stream: Stream = Noise(engine.manifest.input_size)
        calibration = None
        if options["images"]:
            stream, scores = calibrated(
                engine, options["images"], options["views"], options["seed"], options["fpr"]
            )
            calibration = scores, options["fpr"]
        record = endure(engine, stream, under, fps=fps, limits=limits, calibration=calibration)
    # Brings torch: not into the process while its memory is watched.
    from measuring.machine import describe

    machine = describe(runner_threads).model_copy(update={"load": busy})
    if as_json:
        click.echo(json.dumps({"machine": machine.model_dump(), **record.model_dump()}))
    else:
        changed = ", tree changed since" if machine.dirty else ""
        click.echo(
            f"{machine.cpu}, {machine.cores} cores, load {busy:.1f} before; ONNX Runtime "
            f"{machine.versions.onnxruntime}; commit {machine.commit}{changed}"
        )
        for line in lines(record):
            click.echo(line)
    return 1 if record.faults else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))

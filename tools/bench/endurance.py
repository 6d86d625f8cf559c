"""Whether a loaded bundle stands long use by many threads: errors, differences, growth of memory.

    python tools/bench/endurance.py engines/icnet --threads 8 --seconds 60

One engine, shared by all threads, each of which runs a few frames of noise over and over; every second
one with a threshold of 0, so that a gated engine takes its second pass. Every result is compared bit for
bit with the first one of its frame. Buffers find their size in a warm-up of the same work; then the
resident memory is read twice a second, and its slope is that of the straight line through all readings.
Ends with 1 where a run failed or differed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from measuring.command import exit_code
from numpy.typing import NDArray

from zmask_export import Protected, Result, load
from zmask_export.cli.options import BACKENDS

INTERVAL = 0.5
"""Seconds between looks at the memory."""
CASES = 4
MB = 1e6

Case = tuple[NDArray[np.uint8], float | None]
"""A frame and its threshold."""


@dataclass
class Tally:
    """What the threads met, under a lock."""

    frames: int = 0
    errors: list[str] = field(default_factory=list)
    differences: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Record:
    """The outcome. Megabytes are 10^6 bytes: with the bundle loaded, after the warm-up, at the end."""

    runner: str
    threads: int
    seconds: float
    frames: int
    frames_per_second: float
    errors: tuple[str, ...]
    differences: int
    rss_loaded_mb: float
    rss_start_mb: float
    rss_end_mb: float
    slope_mb_per_minute: float

    @property
    def good(self) -> bool:
        """Every run ended well and gave what it gave before."""
        return bool(self.frames) and not self.errors and not self.differences


def noise_cases(size: tuple[int, int]) -> list[Case]:
    """Frames of noise, clean and flagged in turns."""
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 256, (*size, 3), dtype=np.uint8), 0.0 if index % 2 else None)
        for index in range(CASES)
    ]


def same(a: Result, b: Result) -> bool:
    """Whether all outputs are bit for bit the same."""
    return a.flag == b.flag and all(
        np.array_equal(value, b.outputs[name]) for name, value in a.outputs.items()
    )


def work(
    engine: Protected,
    cases: Sequence[Case],
    expected: Sequence[Result],
    end: threading.Event,
    tally: Tally,
) -> None:
    """Run one case after the other until the end."""
    index = threading.get_ident()  # threads begin at different ones
    while not end.is_set():
        index = (index + 1) % len(cases)
        try:
            frame, threshold = cases[index]
            differs = not same(engine(frame, threshold=threshold), expected[index])
            problem = None
        except Exception as exc:  # whatever it is, it is what this command is looking for
            differs, problem = False, f"{type(exc).__name__}: {exc}"
        with tally.lock:
            tally.frames += 1
            tally.differences += differs
            if problem is not None:
                tally.errors.append(problem)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line of least squares through (x, y); two points at least."""
    x, y = zip(*points, strict=True)
    return float(np.polyfit(x, y, 1)[0])


def watch(seconds: float) -> list[tuple[float, float]]:
    """This process's memory for a while: seconds passed and megabytes, first and last moment included."""
    process, started, points = psutil.Process(), time.perf_counter(), []
    while True:
        passed = time.perf_counter() - started
        points.append((passed, process.memory_info().rss / MB))
        if passed >= seconds:
            return points
        time.sleep(min(INTERVAL, seconds - passed))


def endure(engine: Protected, threads: int, seconds: float, warm_up: int) -> Record:
    """Run an engine in threads for a while, and watch this process's memory."""
    cases = noise_cases(engine.manifest.input_size)
    expected = [engine(frame, threshold=threshold) for frame, threshold in cases]
    tally, end = Tally(), threading.Event()
    arguments = (engine, cases, expected, end, tally)
    workers = [threading.Thread(target=work, args=arguments) for _ in range(threads)]
    ((_, loaded),) = watch(0)
    for worker in workers:
        worker.start()
    while tally.frames < warm_up * threads:
        time.sleep(INTERVAL / 10)
    before = tally.frames
    points = watch(seconds)
    frames = tally.frames - before
    end.set()
    for worker in workers:
        worker.join()
    return Record(
        runner=engine.runner.name,
        threads=threads,
        seconds=points[-1][0],
        frames=frames,
        frames_per_second=frames / points[-1][0],
        errors=tuple(tally.errors),
        differences=tally.differences,
        rss_loaded_mb=loaded,
        rss_start_mb=points[0][1],
        rss_end_mb=points[-1][1],
        slope_mb_per_minute=60 * slope(points),
    )


def show(record: Record) -> None:
    """Print the outcome for people."""
    click.echo(
        f"{record.runner}, {record.threads} threads, {record.seconds:.1f} s: {record.frames} frames "
        f"({record.frames_per_second:.1f} a second), {len(record.errors)} errors, "
        f"{record.differences} differences"
    )
    click.echo(
        f"memory: {record.rss_loaded_mb:.1f} MB loaded, {record.rss_start_mb:.1f} at the start, "
        f"{record.rss_end_mb:.1f} at the end; {record.slope_mb_per_minute:+.2f} MB a minute"
    )
    for error in sorted(set(record.errors)):
        click.echo(f"  {record.errors.count(error)} x {error}")


@click.command(context_settings={"show_default": True})
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--threads", default=8, type=click.IntRange(1), help="That share the engine.")
@click.option("--seconds", default=60.0, type=click.FloatRange(0, min_open=True))
@click.option(
    "--warm-up", default=25, type=click.IntRange(0), help="Frames a thread before, not counted."
)
@click.option("--backend", default="auto", type=click.Choice(BACKENDS))
@click.option("--runner-threads", default=1, type=click.IntRange(0), help="Of ONNX Runtime.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(
    bundle: Path,
    threads: int,
    seconds: float,
    warm_up: int,
    backend: Any,
    runner_threads: int,
    as_json: bool,
) -> int:
    """Share a bundle's engine between threads for a while."""
    with load(bundle, backend=backend, threads=runner_threads) as engine:
        record = endure(engine, threads, seconds, warm_up)
    if as_json:
        click.echo(json.dumps(asdict(record)))
    else:
        show(record)
    return 0 if record.good else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))

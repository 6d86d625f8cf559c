"""The threads of a run: frames are dealt out, their answers held against the first ones and counted."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from enduring.resources import Resources
from enduring.stream import Stream
from enduring.times import Times
from enduring.windows import SLICES, WINDOWS
from zmask_export.errors import ZMaskError
from zmask_export.runtime.protected import Protected, Result

INTERVAL = 0.5
"""Seconds between looks at the process."""
MOST_TEXTS = 20
"""Different errors that are kept."""


@dataclass(frozen=True)
class Load:
    """What an engine is put under.

    Attributes:
        threads: that share it.
        frames: after which the run ends; None: by time.
        seconds: after which it ends, where ``frames`` is None.
        warm_up: frames a thread before, which do not count.
        patience: seconds without any answer after which what is out is lost.
    """

    threads: int
    frames: int | None
    seconds: float = math.inf
    warm_up: int = 25
    patience: float = 120.0


@dataclass(frozen=True)
class Ticket:
    """One frame to run: its number in the whole run, and its slice; None in the warm-up."""

    number: int
    slice: int | None


class Course:
    """Deals out tickets, in order, until the run is over."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._warm = load.warm_up * load.threads
        self._next = 0
        self._lock = threading.Lock()
        self.began = threading.Event()
        self.started = 0.0

    @property
    def dealt(self) -> int:
        """Tickets so far, those of the warm-up too."""
        return self._next

    def ticket(self) -> Ticket | None:
        """The next one; None where the run is over."""
        with self._lock:
            number = self._next
            if number < self._warm:
                self._next += 1
                return Ticket(number, None)
            if not self.began.is_set():
                self.started = time.perf_counter()
                self.began.set()
            done = self.share()
            if done >= 1:
                return None
            self._next += 1
            return Ticket(number, min(int(done * SLICES), SLICES - 1))

    def share(self) -> float:
        """Of the run that is over, from 0."""
        if self._load.frames is not None:
            return (self._next - self._warm) / self._load.frames if self._load.frames else 1.0
        return (time.perf_counter() - self.started) / self._load.seconds

    def stop(self) -> None:
        """Deal out no more."""
        with self._lock:
            self._load = Load(self._load.threads, frames=0)


@dataclass
class Tally:
    """What came back, in memory that does not grow with the run.

    Attributes:
        returned: frames that came back in one way or another.
        answered: results after the warm-up.
        errors, uncaught: frames that gave an error of ours, and another one.
        differences: results that were not bit for bit the first one of their frame.
        repeats: results that could be compared.
        flagged: of the answered ones, those with the flag.
        texts: of errors; the first ``MOST_TEXTS`` different ones.
        wall, processor: seconds of the calls, and of the calling threads' work in them.
        seen, flags, scores: by distinct frame, of its first result.
        ended: when the last frame came back.
    """

    distinct: int
    returned: int = 0
    answered: int = 0
    errors: int = 0
    uncaught: int = 0
    differences: int = 0
    repeats: int = 0
    flagged: int = 0
    ended: float = 0.0
    texts: Counter[str] = field(default_factory=Counter)
    wall: Times = field(default_factory=Times)
    processor: Times = field(default_factory=Times)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._digests = np.full(self.distinct, 0, np.uint64)
        self.seen = np.full(self.distinct, False)
        self.flags = np.full(self.distinct, False)
        self.scores = np.full(self.distinct, np.nan)

    def take(self, ticket: Ticket, result: Result, wall: float, processor: float) -> None:
        """Count a result."""
        index, digest = ticket.number % self.distinct, digest_of(result)
        with self._lock:
            self.returned += 1
            if not self.seen[index]:
                self.seen[index] = True
                self._digests[index] = digest
                self.flags[index], self.scores[index] = result.flag, result.score
            else:
                self.repeats += 1
                self.differences += bool(self._digests[index] != digest)
            if ticket.slice is not None:
                self.answered += 1
                self.flagged += result.flag
                self.wall.add(ticket.slice, wall)
                self.processor.add(ticket.slice, processor)
                self.ended = time.perf_counter()

    def fail(self, error: Exception) -> None:
        """Count an error."""
        text, ours = f"{type(error).__name__}: {error}", isinstance(error, ZMaskError)
        with self._lock:
            self.returned += 1
            self.errors += ours
            self.uncaught += not ours
            if text in self.texts or len(self.texts) < MOST_TEXTS:
                self.texts[text] += 1


def digest_of(result: Result) -> int:
    """64 bits of all outputs, names and bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(result.outputs.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).data)
    return int.from_bytes(digest.digest(), "little")


def work(engine: Protected, stream: Stream, course: Course, tally: Tally) -> None:
    """Run frames until the course is over; their making and their comparison are not timed."""
    while (ticket := course.ticket()) is not None:
        try:
            frame, threshold = stream.frame(ticket.number % stream.distinct)
            began, busy = time.perf_counter(), time.thread_time()
            result = engine(frame, threshold=threshold)
            busy, wall = time.thread_time() - busy, time.perf_counter() - began
            tally.take(ticket, result, wall, busy)
        except Exception as exc:  # whatever it is, it is what this command is looking for
            tally.fail(exc)


def run(
    engine: Protected,
    stream: Stream,
    load: Load,
    on_window: Callable[[int, Tally, Resources], None],
) -> tuple[Course, Tally, Resources]:
    """Put an engine under a load and look at this process meanwhile.

    Args:
        engine, stream, load: what, on what, how much.
        on_window: told how many of the twelve windows are over, as they end.
    """
    course, tally, resources = Course(load), Tally(stream.distinct), Resources()
    # Daemons: a thread that never comes back out of the engine must not keep the command from ending.
    workers = [
        threading.Thread(target=work, args=(engine, stream, course, tally), daemon=True)
        for _ in range(load.threads)
    ]
    for worker in workers:
        worker.start()
    try:
        _watch(workers, course, tally, resources, load.patience, on_window)
    finally:
        course.stop()
        for worker in workers:
            worker.join(load.patience)
    return course, tally, resources


def _watch(
    workers: list[threading.Thread],
    course: Course,
    tally: Tally,
    resources: Resources,
    patience: float,
    on_window: Callable[[int, Tally, Resources], None],
) -> None:
    """Until all workers are done, or none has had an answer for too long."""
    last, since, windows = -1, time.perf_counter(), 0
    while alive := [worker for worker in workers if worker.is_alive()]:
        now = time.perf_counter()
        done = course.share() if course.began.is_set() else 0.0
        if course.began.is_set() and done < 1:
            resources.look(int(done * SLICES))
        if int(done * WINDOWS) > windows:
            windows = min(int(done * WINDOWS), WINDOWS)
            on_window(windows, tally, resources)
        if tally.returned != last:
            last, since = tally.returned, now
        elif now - since > patience:
            return
        alive[0].join(INTERVAL)

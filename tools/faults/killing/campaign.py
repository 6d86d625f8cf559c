"""Killing one verb again and again, and holding what comes of it against an undisturbed run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from killing.cases import Case
from killing.checks import Files, Left, files_of, look
from killing.process import Ended, Verb

AIMED = 1 / 3
"""Of the kills, that wait for a write and come within it or shortly after."""
WRITE_S = 0.03
ALONE = 1 / 4
"""Of the kills, that only meet the verb and not what it started."""
POLL_S = 0.0005
SLACK = 1.05
"""Kills are drawn over this many times an undisturbed run's seconds."""


@dataclass(frozen=True)
class Undisturbed:
    """What a case gives when nobody disturbs it."""

    files: Files
    out: str


@dataclass
class Tally:
    """What came of a verb.

    Attributes:
        kills: runs that were killed; of them ``nothing`` with nothing of theirs on disk yet, ``kept`` with
            progress or part of a result, ``writing`` with a write begun and not ended.
        resumed: starts that found what a killed run had kept.
        completed: results that were compared with the undisturbed one.
        broken: what was visible and not whole.
        lost: results that differ, work that had been kept and is gone.
        uncaught: starts that ended by themselves with anything but their result.
        left: what a completed run left behind.
        seconds: in all.
    """

    verb: str
    kills: int = 0
    nothing: int = 0
    kept: int = 0
    writing: int = 0
    resumed: int = 0
    completed: int = 0
    broken: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    uncaught: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """Everything that was found, with its kind."""
        kinds = ("broken", "lost", "uncaught", "left")
        return [f"{kind}: {fault}" for kind in kinds for fault in getattr(self, kind)]


class Campaign:
    """A place where verbs run.

    Args:
        root: an empty folder.
        seed: of the moments.
        finds: where the folder goes in which something was found.

    Attributes:
        seconds: that a case took when it was last undisturbed, by its name.
    """

    def __init__(self, root: Path, seed: int, finds: Path) -> None:
        self.moments = np.random.default_rng(seed)
        self.folder, self.said, self.scratch = root / "work", root / "said", root / "tmp"
        self.finds = finds
        self.seconds: dict[str, float] = {}
        for path in (self.folder, self.said, self.scratch):
            path.mkdir()

    def result(self, case: Case) -> Files:
        """The files that an undisturbed run leaves.

        Raises:
            click.ClickException: it fails.
        """
        return self._undisturbed(case).files

    def _undisturbed(self, case: Case) -> Undisturbed:
        self._begin(case)
        verb = self._start(case)
        ended = verb.end()
        if ended.code:
            said = f"{ended.err}{ended.out}"[-2000:]
            raise click.ClickException(f"{case.name} fails by itself ({ended.code}): {said}")
        self.seconds[case.name] = verb.seconds
        return Undisturbed(files_of(self.folder), ended.out)

    def _begin(self, case: Case) -> None:
        """Leave what a case begins with, and nothing else."""
        shutil.rmtree(self.folder)
        for name, data in case.before.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.folder.mkdir(exist_ok=True)

    def _start(self, case: Case) -> Verb:
        """A case in a process of its own."""
        return Verb(case.arguments, self.folder, self.said, self.scratch)

    def run(
        self, verb: str, cases: Sequence[Case], kills: int, on_kill: Callable[[int], None]
    ) -> Tally:
        """Kill a verb until it was killed often enough; then every case of it ends in peace.

        Args:
            verb: its name.
            cases: of the verb.
            kills: how often.
            on_kill: told how often it was so far.
        """
        started, tally = time.monotonic(), Tally(verb)
        expected = [self._undisturbed(case) for case in cases]
        while tally.kills < kills:
            shares = np.array([case.share for case in cases])
            at = int(self.moments.choice(len(cases), p=shares / shares.sum()))
            self._begin(cases[at])
            self._to_a_result(cases[at], expected[at], tally, kills, on_kill)
        for case, wanted in zip(cases, expected, strict=True):
            self._begin(case)
            self._to_a_result(case, wanted, tally, 0, on_kill)
        tally.left += [f"{path.name} in TMPDIR" for path in self.scratch.iterdir()]
        tally.seconds = time.monotonic() - started
        return tally

    def _to_a_result(
        self,
        case: Case,
        wanted: Undisturbed,
        tally: Tally,
        kills: int,
        on_kill: Callable[[int], None],
    ) -> None:
        """Start a case and kill it, again and again, until its result is there or something is wrong."""
        known, last = len(tally.faults), look(self.folder, case.before, wanted.files)
        while len(tally.faults) == known:
            verb = self._start(case)
            ended = (
                verb.end()
                if tally.kills >= kills
                else self._until_a_moment(verb, self.seconds[case.name])
            )
            if ended is not None:
                if not _kept(case, last):
                    # How long it takes depends on what else this machine does.
                    self.seconds[case.name] = verb.seconds
                self._compare(case, wanted, ended, tally)
                break
            orphans = verb.kill(alone=self.moments.random() < ALONE)
            tally.left += [f"{case.name}: {name} went on without it" for name in orphans]
            left = look(self.folder, case.before, wanted.files)
            _count(case, verb.pid, last, left, tally)
            on_kill(tally.kills)
            if files_of(self.folder) == wanted.files:
                tally.completed += 1
                break
            last = left
        if len(tally.faults) > known:
            shutil.copytree(self.folder, self.finds / f"{tally.verb}-{tally.kills}")

    def _until_a_moment(self, verb: Verb, seconds: float) -> Ended | None:
        """None at the moment for a kill; how the verb ended where that was before."""
        ended = verb.wait(self.moments.uniform(0, SLACK * seconds))
        if self.moments.random() > AIMED:
            return ended
        while ended is None and not any(self.folder.rglob(f".*.{verb.pid}.partial")):
            ended = verb.wait(POLL_S)
        # Most writes are short.
        return ended or verb.wait(WRITE_S * self.moments.random() ** 3)

    def _compare(self, case: Case, wanted: Undisturbed, ended: Ended, tally: Tally) -> None:
        if ended.code or "Traceback" in ended.err:
            tally.uncaught.append(f"{case.name}: exit code {ended.code}: {ended.err[-500:]}")
            return
        tally.completed += 1
        found = files_of(self.folder)
        tally.lost += [
            f"{case.name}: another {name}"
            for name, data in wanted.files.items()
            if found.get(name) != data
        ]
        if ended.out != wanted.out:
            tally.lost.append(f"{case.name}: says {ended.out[:200]}")
        tally.left += [f"{case.name}: {name}" for name in found.keys() - wanted.files.keys()]


def _count(case: Case, pid: int, last: Left, left: Left, tally: Tally) -> None:
    """Count a kill, and hold what it left against what the one before had left."""
    tally.kills += 1
    tally.writing += (writing := pid in left.writers)
    tally.kept += (kept := not writing and _kept(case, left))
    tally.nothing += not writing and not kept
    tally.resumed += _kept(case, last)
    tally.broken += [f"{case.name}: {fault}" for fault in left.faults]
    tally.lost += [
        f"{case.name}: {name} is gone"
        for name in last.visible.keys() - left.visible.keys()
        if name.split("/")[0] not in left.moved
    ]
    if left.visible == case.before:
        tally.lost += [
            f"{case.name}: {name} fell from {done} to {left.progress.get(name, 0)}"
            for name, done in last.progress.items()
            if left.progress.get(name, 0) < done
        ]


def _kept(case: Case, left: Left) -> bool:
    """Whether a later start can go on from what is there."""
    return bool(left.progress) or left.visible != case.before

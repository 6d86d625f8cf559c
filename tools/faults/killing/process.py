"""Verbs in processes of their own that start at once: forks of a server that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "matplotlib.figure",
        "onnxscript",
        "zmask_export.cli.console",
        "zmask_export.cli.main",
        *(
            f"zmask_export.cli.{verb}"
            for verb in ("build", "calibrate", "craft", "evaluate", "fit")
        ),
        *(f"zmask_export.pipeline.{verb}" for verb in ("build", "craft", "evaluate", "study")),
    ]
)
PATIENCE_S = 600
"""A verb that takes longer hangs."""
GRACE_S = 10
"""Children of a killed verb that live longer were left behind."""


@dataclass(frozen=True)
class Ended:
    """How a verb ended by itself."""

    code: int
    out: str
    err: str


class Verb:
    """A running verb, leader of a process group of its own.

    Args:
        arguments: of the command line.
        folder: where it works.
        said: folder for what it prints.
        scratch: what it takes for the folder of temporary files.

    Attributes:
        seconds: from its start to the last look at it.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, said: Path, scratch: Path) -> None:
        self._said = said
        self.process: BaseProcess = _FORKS.Process(
            target=_run, args=(list(arguments), folder, said, scratch)
        )
        self.process.start()
        self._started, self.seconds = time.monotonic(), 0.0
        self.pid: int = self.process.pid or 0

    def wait(self, seconds: float) -> Ended | None:
        """Its end, or None where it does not come in time."""
        self.process.join(seconds)
        self.seconds = time.monotonic() - self._started
        code = self.process.exitcode
        if code is None:
            return None
        out, err = ((self._said / name).read_text("utf-8") for name in ("out", "err"))
        return Ended(code, out, err)

    def end(self) -> Ended:
        """Its end.

        Raises:
            TimeoutError: it hangs, and was killed.
        """
        ended = self.wait(PATIENCE_S)
        if ended is None:
            self.kill(alone=False)
            raise TimeoutError
        return ended

    def kill(self, *, alone: bool) -> list[str]:
        """SIGKILL, to its whole group or to itself alone.

        Returns:
            What it had started and what goes on without it (killed now, too).
        """
        try:
            (os.kill if alone else os.killpg)(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it leads no group yet
            os.kill(self.pid, signal.SIGKILL)
        self.process.join()
        left, deadline = _group(self.pid), time.monotonic() + GRACE_S
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = _group(self.pid)
        for process in left:
            process.kill()
        return [f"process {process.pid}" for process in left]


def _group(leader: int) -> list[psutil.Process]:
    """Processes of a group; those that have ended and wait for their parent do not count."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _run(arguments: list[str], folder: Path, said: Path, scratch: Path) -> None:
    os.setsid()
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder)
    os.environ["TMPDIR"], tempfile.tempdir = str(scratch), None
    from zmask_export.calibrate import statistics
    from zmask_export.cli.main import run

    statistics.SAVE_EVERY_S = 0  # after every batch: a pass of 20 seconds would be a slow victim
    sys.exit(run(arguments))

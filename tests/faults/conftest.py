"""A way to run a verb in a process of its own, quickly, with limits, signals and hooks."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ONE_THREAD, Outcome
from zmask_export.cli import interrupts

MIB = 1 << 20
SERVER = Path(__file__).with_name("server.py")
PATIENCE_S = 120
"""After which a verb that does not end is a deadlock."""

PAUSE = """
import os, signal, time
from zmask_export.cli import console
bar = console.ConsoleReporter.bar
import contextlib
@contextlib.contextmanager
def pausing(self, label, total):
    with bar(self, label, total) as advance:
        def paused(done, note=""):
            advance(done, note)
            if (label, done) == ({label!r}, {done}):
                open({reached!r}, "w").close()
                while True:  # a pause would miss a signal that came just before it
                    time.sleep(0.01)
        yield paused
console.ConsoleReporter.bar = pausing
"""
"""Waits for a signal when a bar has come so far, and says so through a pipe."""


def _hear() -> None:
    """Ignore nothing: a shell's background job ignores SIGINT, what nohup starts SIGHUP."""
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.SIG_DFL)


class Forks:
    """Runs the entry point in forks of a process that has imported it, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._serve()

    def _serve(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ONE_THREAD | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
            preexec_fn=_hear,
        )

    def start(
        self,
        *arguments: object,
        memory: int | None = None,
        files: int | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        hook: str = "",
        stdin: Path = Path(os.devnull),
        stdout: Path | None = None,
    ) -> int:
        """Start a verb; its process.

        Args:
            arguments: of the command line.
            memory: bytes that it may map beyond what its imports did.
            files: descriptors that it may have open.
            env: more environment.
            cwd: its working directory.
            hook: Python to execute first.
            stdin, stdout: files; standard output is kept where None.
        """
        self._arguments = tuple(map(str, arguments))
        self._out, self._err = (self._folder / name for name in ("stdout", "stderr"))
        for path in (self._out, self._err):
            path.write_bytes(b"")
        request = {
            "arguments": self._arguments,
            "memory": memory,
            "files": files,
            "env": env or {},
            "cwd": str(cwd or Path.cwd()),
            "hook": hook,
            "stdin": str(stdin),
            "stdout": str(stdout or self._out),
            "stderr": str(self._err),
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        return self._answer()

    def end(self) -> Outcome:
        """Wait for the process that was started last."""
        code = self._answer()
        out, err = self._out.read_text("utf-8"), self._err.read_text("utf-8")
        assert "Traceback" not in err, err
        return Outcome(code, out, err, self._arguments)

    def run(self, *arguments: object, **how: Any) -> Outcome:
        """Start a verb and wait for it."""
        self.start(*arguments, **how)
        return self.end()

    def signalled(
        self, number: int, label: str, done: int, *arguments: object, **how: Any
    ) -> Outcome:
        """Start a verb, and send it a signal when a progress bar has come so far."""
        reached = self._folder / "reached"
        os.mkfifo(reached)
        hook = PAUSE.format(label=label, done=done, reached=str(reached))
        pid = self.start(*arguments, hook=hook, **how)
        with reached.open():  # returns when the other end is opened
            os.kill(pid, number)
        reached.unlink()
        return self.end()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._server.stdout], [], [], PATIENCE_S)[0]:
                self.close()
                self._serve()  # the next test has a server
                pytest.fail(f"{self._arguments} does not end")
            line += os.read(self._server.stdout.fileno(), 1)
        return int(line)

    def close(self) -> None:
        """End the server."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    made = Forks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


def assert_interrupted(outcome: Outcome, number: int, verb: str) -> None:
    """The exit code of a signal, and the one line that says what is kept."""
    assert outcome.code == 128 + number, outcome.err
    assert outcome.err.splitlines()[-1] == interrupts.message(verb)
    assert "Error: " not in outcome.err

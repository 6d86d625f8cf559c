"""Builds that are killed, stopped or run twice: a bundle is whole or absent."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ONE_THREAD, Inputs, command, contents, zmask
from zmask_export.errors import OutputError, ZMaskError
from zmask_export.pipeline import build as build_module
from zmask_export.pipeline.bundle import write_bundle
from zmask_export.runtime.protected import load

PATIENCE_S = 180

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(inputs: Inputs, own_bundle: Path, out: Path) -> Start:
    """Starts a build into ``out``, of what ``own_bundle`` was built from."""
    arguments = command(
        "build", *inputs.own, "--calibration", own_bundle / "calibration.safetensors",
        "--target", "onnx", "--out", out,
    )  # fmt: skip

    def starting() -> subprocess.Popen[str]:
        return subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ONE_THREAD,
            # A shell's background job ignores SIGINT, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return starting


def _wait_for_writing(build: subprocess.Popen[str], out: Path) -> None:
    """Until the hidden folder of this build is there, or the build has ended."""
    hidden = out.with_name(f".{out.name}.{build.pid}.partial")
    deadline = time.monotonic() + PATIENCE_S
    while not hidden.exists() and build.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _kill(build: subprocess.Popen[str]) -> None:
    build.kill()
    build.communicate(timeout=PATIENCE_S)


def _whole_or_absent(out: Path) -> None:
    """Nothing of a killed build shows, or its bundle is whole; then it makes room for the next."""
    visible = [path.name for path in out.parent.iterdir() if not path.name.startswith(".")]
    assert visible in ([], [out.name])
    if visible:
        load(out)
        shutil.rmtree(out)


def _in_a_process(function: Callable[[], object]) -> int:
    """Run a function in a fork of this process, which ends with the exit code of its error."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except ZMaskError as exc:
            code = exc.exit_code
        finally:
            os._exit(code)
    return pid


def _exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_builds_killed_at_any_moment_before_writing_leave_nothing(start: Start, out: Path) -> None:
    moments = random.Random(0)  # noqa: S311
    for _ in range(3):
        build = start()
        time.sleep(moments.uniform(0.1, 4))
        _kill(build)
        assert contents(out.parent) == []


def test_killed_and_racing_writers_leave_a_whole_bundle_or_none(
    inputs: Inputs, own_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One build, whose last step is taken by forks that are killed, then by two at once."""
    moments = random.Random(1)  # noqa: S311
    left: list[str] = []

    def write(place: Path, **given: Any) -> object:
        def step() -> object:
            return write_bundle(place, **given)

        for _ in range(8):
            pid = _in_a_process(step)
            time.sleep(moments.uniform(0, 0.2))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            left.extend(path.name for path in place.parent.glob(f".{place.name}.{pid}.*"))
            _whole_or_absent(place)
        for _ in range(3):
            writers = [_in_a_process(step), _in_a_process(step)]
            assert sorted(_exit_code(pid) for pid in writers) == [0, OutputError.exit_code]
            assert [path.name for path in place.parent.iterdir()] == [place.name]
            _whole_or_absent(place)
        return step()

    monkeypatch.setattr(build_module, "write_bundle", write)
    outcome = zmask(
        "build", *inputs.own, "--calibration", own_bundle / "calibration.safetensors",
        "--target", "onnx", "--out", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert left, "no fork was killed while it wrote"
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    load(out)
    for name in ("protected.onnx", "calibration.safetensors"):
        assert (out / name).read_bytes() == (own_bundle / name).read_bytes()


@pytest.mark.slow
def test_killed_builds_leave_no_bundle_and_the_next_one_cleans_up(start: Start, out: Path) -> None:
    moments = random.Random(2)  # noqa: S311
    for _ in range(3):
        build = start()
        _wait_for_writing(build, out)
        time.sleep(moments.uniform(0, 0.03))
        _kill(build)
        _whole_or_absent(out)
    build = start()
    _, errors = build.communicate(timeout=PATIENCE_S)
    assert build.returncode == 0, errors
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    load(out)


@pytest.mark.slow
def test_of_two_builds_at_once_one_wins(start: Start, out: Path) -> None:
    first, second = start(), start()
    ends = []
    for build in (first, second):
        printed, errors = build.communicate(timeout=PATIENCE_S)
        ends.append((build.returncode, printed, errors))
    (won, _, _), (lost, printed, errors) = sorted(ends)
    assert (won, lost) == (0, 5), errors
    assert printed == ""
    assert "Traceback" not in errors
    assert errors.count("Error: ") == 1
    assert "  Fix: " in errors
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    load(out)


def test_an_interrupted_build_says_so_and_leaves_nothing(start: Start, out: Path) -> None:
    build = start()
    assert build.stderr is not None
    while not build.stderr.readline().startswith("opening"):
        assert build.poll() is None
    build.send_signal(signal.SIGINT)
    printed, errors = build.communicate(timeout=PATIENCE_S)
    assert build.returncode == 130
    assert printed == ""
    assert "Interrupted." in errors
    assert "Traceback" not in errors
    assert contents(out.parent) == []

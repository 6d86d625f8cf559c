"""Signals that ask a verb to end: what is kept, how it goes on, and to the same result."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ONE_THREAD, Inputs, Outcome, command, contents, zmask
from tests.faults.conftest import MIB, Forks, assert_interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAID = '{{"image": "{}.png", "flag": false, "score": 0.01, "threshold": 0.3}}\n'
"""A line of ``run``."""


def _statistics(inputs: Inputs, out: Path) -> tuple[object, ...]:
    return ("calibrate", *inputs.random, "--images", inputs.images, "--batch", 1, "--out", out)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_an_interrupted_calibration_goes_on_to_the_same_file(
    number: int, forks: Forks, inputs: Inputs, out: Path
) -> None:
    outcome = forks.signalled(number, "calibrating", 2, *_statistics(inputs, out))
    assert_interrupted(outcome, number, "calibrate")
    assert contents(out.parent) == [".result.progress"]
    resumed = forks.run(*_statistics(inputs, out))
    assert resumed.code == 0, resumed.err
    assert contents(out.parent) == ["result"]
    whole = out.with_name("whole")
    assert zmask(*_statistics(inputs, whole)).code == 0
    assert out.read_bytes() == whole.read_bytes()


def test_an_interrupted_craft_goes_on_to_the_same_patch(
    forks: Forks, inputs: Inputs, out: Path
) -> None:
    def arguments(path: Path) -> tuple[object, ...]:
        return (
            "craft", *inputs.random, "--data", inputs.camvid, "--images", 1, "--epochs", 2,
            "--out", path,
        )  # fmt: skip

    outcome = forks.signalled(signal.SIGTERM, "crafting", 1, *arguments(out))
    assert_interrupted(outcome, signal.SIGTERM, "craft")
    assert contents(out.parent) == [".result.progress"]
    assert forks.run(*arguments(out)).code == 0
    assert contents(out.parent) == ["result"]
    whole = out.with_name("whole")
    assert forks.run(*arguments(whole)).code == 0
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("verb", "label", "done"), [("fit", "heatmaps", 1), ("evaluate", "evaluating", 2)]
)
def test_an_interrupted_verb_without_progress_leaves_nothing(
    verb: str, label: str, done: int, forks: Forks, inputs: Inputs, bundle: Path, out: Path
) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "fit": (
            *inputs.random, "--calibration", bundle / "calibration.safetensors",
            "--images", inputs.images, "--patch", inputs.patch, "--epochs", 1, "--out", out,
        ),
        "evaluate": (
            bundle, "--data", inputs.camvid, "--patch", inputs.patch, "--html", out,
        ),
    }  # fmt: skip
    outcome = forks.signalled(signal.SIGTERM, label, done, verb, *arguments[verb])
    assert_interrupted(outcome, signal.SIGTERM, verb)
    assert (outcome.out, contents(out.parent)) == ("", [])


def test_under_a_limit_on_memory_signals_reach_the_verb(
    forks: Forks, inputs: Inputs, out: Path
) -> None:
    outcome = forks.signalled(
        signal.SIGTERM, "calibrating", 2, *_statistics(inputs, out), memory=1024 * MIB
    )
    assert_interrupted(outcome, signal.SIGTERM, "calibrate")
    assert contents(out.parent) == [".result.progress"]


def test_an_interrupted_monitor_of_a_stream(forks: Forks, bundle: Path, tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    os.mkfifo(stream)
    # Opened for both, so that neither side waits for the other.
    with stream.open("r+b", buffering=0) as writer:
        writer.write("".join(map(SAID.format, range(3))).encode())
        hook = (
            "import os, signal\n"
            "from zmask_export.pipeline import monitor\n"
            "take = monitor._Watch.take\n"
            "def taken(watch, frame):\n"
            "    if watch.taken == 1: os.kill(os.getpid(), signal.SIGTERM)\n"
            "    return take(watch, frame)\n"
            "monitor._Watch.take = taken\n"
        )
        outcome = forks.run("monitor", bundle, stdin=stream, hook=hook)
    assert_interrupted(outcome, signal.SIGTERM, "monitor")
    assert outcome.out == ""


def test_an_interrupted_run_keeps_the_lines_of_its_pictures(
    forks: Forks, inputs: Inputs, bundle: Path, out: Path
) -> None:
    hook = (
        "import os, signal\n"
        "from zmask_export.data import images\n"
        "read = images.read\n"
        "def interrupted(path, **how):\n"
        "    if path.name == '2.png': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return read(path, **how)\n"
        "images.read = interrupted\n"
    )
    outcome = forks.run("run", bundle, inputs.images, "--out", out, hook=hook)
    assert_interrupted(outcome, signal.SIGINT, "run")
    assert outcome.out.count("\n") == 2
    assert (out / "results.jsonl").read_text() == outcome.out
    assert len(list(out.iterdir())) == 1 + 2 * 3


def test_a_run_whose_reader_goes_away(inputs: Inputs, bundle: Path, out: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            command("run", bundle, inputs.images, "--out", out),
            stdout=pipe, stderr=subprocess.PIPE, text=True, check=False, env=ONE_THREAD,
        )  # fmt: skip
    outcome = Outcome(done.returncode, "", done.stderr)
    assert (outcome.code, outcome.err) == (141, "")
    assert (out / "results.jsonl").read_text().count("\n") == 1


def test_help_whose_reader_goes_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            command("--help"), stdout=pipe, stderr=subprocess.PIPE, check=False, env=ONE_THREAD
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_ignored_signal_stays_ignored(forks: Forks, inputs: Inputs, out: Path) -> None:
    """As under nohup."""
    hook = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from zmask_export.calibrate import statistics\n"
        "measure = statistics._measure_batch\n"
        "def hung_up(bare, frames):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return measure(bare, frames)\n"
        "statistics._measure_batch = hung_up\n"
    )
    outcome = forks.run(*_statistics(inputs, out), hook=hook)
    assert outcome.code == 0, outcome.err
    assert contents(out.parent) == ["result"]

"""The endurance command: a short run of it, and that it finds what it looks for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import endurance
import pytest

import zmask_export
from tests.conftest import ONE_THREAD
from zmask_export.errors import BackendError

COMMAND = Path(endurance.__file__)
SHORT = ("--threads", "4", "--seconds", "2", "--warm-up", "1")


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=ONE_THREAD,
    )


def test_threads_share_an_engine_for_a_while(bundle: Path) -> None:
    done = _run(bundle, *SHORT, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert record["frames"] > 0
    assert record["seconds"] >= 2
    assert (record["errors"], record["differences"], record["threads"]) == ([], 0, 4)
    assert record["rss_end_mb"] > record["rss_loaded_mb"] > 50


def test_what_is_no_bundle_is_an_error_of_ours(tmp_path: Path) -> None:
    done = _run(tmp_path, *SHORT)
    assert done.returncode == 4
    assert "is no bundle" in done.stderr


@pytest.mark.parametrize("fault", ["error", "difference"])
def test_faults_are_counted(
    fault: str,
    detect_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = zmask_export.load(detect_bundle, threads=1)
    sound, calls = engine.runner.run, 0

    def faulty(inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        outputs = sound(inputs)
        if calls > endurance.CASES:  # those give what is expected
            if fault == "error":
                raise BackendError("It broke.", fix="None.")
            outputs["score"] = outputs["score"] + 1
        return outputs

    monkeypatch.setattr(engine.runner, "run", faulty)
    record = endurance.endure(engine, threads=2, seconds=0.3, warm_up=0)
    assert not record.good
    assert bool(record.errors) == (fault == "error")
    assert bool(record.differences) == (fault == "difference")
    endurance.show(record)
    assert ("BackendError: It broke." in capsys.readouterr().out) == (fault == "error")
    assert replace(record, errors=(), differences=0, frames=1).good


def test_a_slope_is_that_of_the_line() -> None:
    assert endurance.slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)
    assert endurance.slope([(0, 5), (1, 7), (2, 5)]) == pytest.approx(0)

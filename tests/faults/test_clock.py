"""A clock that jumps by years: no result depends on it, and no duration is negative."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import Inputs, zmask
from tests.test_structure import MODULES
from zmask_export.profiling.timing import take_turns

YEAR = 365 * 86_400.0
WALL = {"time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime", "ctime", "strftime"}
"""Functions of ``time`` and ``datetime`` that tell the time of day."""


@pytest.fixture
def jumps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each look at the clock of the day finds it 20 years ahead or 30 back, in turns."""
    real, calls = time.time, count()

    def time_of_day() -> float:
        return real() + (20 if next(calls) % 2 else -30) * YEAR

    monkeypatch.setattr(time, "time", time_of_day)
    monkeypatch.setattr(time, "time_ns", lambda: int(time_of_day() * 1e9))
    yield
    assert time.time() != time.time()


def _looks_at_the_day(source: str) -> list[int]:
    """Lines that ask for the time of day."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr in WALL
        and isinstance(node.value, ast.Name)
        and node.value.id in ("time", "datetime", "date")
    ]


def test_nothing_looks_at_the_time_of_day() -> None:
    assert _looks_at_the_day("import time\nx = time.time()\n") == [2]
    assert _looks_at_the_day("import time\nx = time.monotonic()\n") == []
    found = {path.name: _looks_at_the_day(path.read_text("utf-8")) for path in MODULES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def _measured(inputs: Inputs, bundle: Path, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    statistics, patch, page = (folder / name for name in ("statistics", "patch", "page"))
    data = ("--data", inputs.camvid)
    for arguments in (
        ("calibrate", *inputs.random, "--images", inputs.images, "--out", statistics),
        ("craft", *inputs.random, *data, "--images", 1, "--epochs", 1, "--out", patch),
        ("evaluate", bundle, *data, "--patch", inputs.patch, "--html", page),
    ):
        outcome = zmask(*arguments)
        assert outcome.code == 0, outcome.err
        assert "-1:" not in outcome.err, "a negative duration"
    return {path.name: path.read_bytes() for path in (statistics, patch, page)}


def test_results_are_the_same_bytes(
    inputs: Inputs, bundle: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    steady = _measured(inputs, bundle, tmp_path / "steady")
    request.getfixturevalue("jumps")
    assert _measured(inputs, bundle, tmp_path / "jumping") == steady


@pytest.mark.usefixtures("jumps")
def test_no_measured_time_is_negative() -> None:
    taken = take_turns({"nothing": lambda: None, "a sum": lambda: sum(range(1000))}, 5)
    assert all(0 <= value < 1e4 for values in taken.values() for value in values)


@pytest.mark.slow
@pytest.mark.usefixtures("jumps")
@pytest.mark.parametrize("epoch", ["0", "253402300799"])
def test_a_build_is_the_same_bytes(
    epoch: str, inputs: Inputs, bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a date before the first that a zip file can hold, and in the year 9999."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    statistics = bundle / "calibration.safetensors"
    outcome = zmask(
        "build", *inputs.random, "--calibration", statistics, "--target", "onnx", "--out", out
    )
    assert outcome.code == 0, outcome.err
    for name in ("protected.onnx", "calibration.safetensors"):
        assert (out / name).read_bytes() == (bundle / name).read_bytes()

"""Runs that were killed while they wrote leave a hidden file; the next run of the same clears it up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Inputs, contents, zmask


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("verb", ["calibrate", "fit", "craft", "run"])
def test_leftovers_of_killed_writes_go(
    verb: str, inputs: Inputs, bundle: Path, calibration: Path, out: Path, dead: int
) -> None:
    images, patch = ("--images", inputs.images), ("--patch", inputs.patch)
    arguments: dict[str, tuple[object, ...]] = {
        "calibrate": (*inputs.random, *images),
        "fit": (*inputs.random, "--calibration", calibration, *images, *patch, "--epochs", "1"),
        "craft": (*inputs.random, "--data", inputs.camvid, "--images", "1", "--epochs", "1"),
        "run": (bundle, inputs.image),
    }
    written = {
        "calibrate": (out.name, f".{out.name}.progress"),
        "fit": (out.name,),
        "craft": (out.name, f".{out.name}.progress"),
        "run": ("results.jsonl", "0.mask.png", "0.overlay.png", "0.prediction.png"),
    }[verb]
    place = out if verb == "run" else out.parent
    place.mkdir(exist_ok=True)
    for name in written:
        (place / f".{name}.{dead}.partial").write_bytes(b"half")
    outcome = zmask(verb, *arguments[verb], "--out", out)
    assert outcome.code == 0, outcome.err
    assert contents(place) == sorted(name for name in written if not name.startswith("."))

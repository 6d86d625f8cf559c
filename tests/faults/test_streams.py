"""Standard streams that are full or closed, and folders that a library would like to write to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ONE_THREAD, Inputs, assert_refused, command, contents
from tests.faults.conftest import Forks

FULL = Path("/dev/full")


@pytest.mark.parametrize("verb", ["inspect", "run"])
def test_a_full_standard_output(
    verb: str, forks: Forks, inputs: Inputs, bundle: Path, out: Path
) -> None:
    images = (inputs.image,) if verb == "run" else ()
    outcome = forks.run(verb, bundle, *images, stdout=FULL)
    assert_refused(outcome, 5, "The output cannot be written: the disk is full.", "Free space")


def test_an_error_that_nobody_can_be_told(out: Path) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            command("keygen", out / "below" / "key", "--nosuch"),
            stderr=full, stdout=full, check=False, timeout=120, env=ONE_THREAD,
        )  # fmt: skip
    assert done.returncode == 2


def test_closed_standard_streams(inputs: Inputs, bundle: Path, out: Path) -> None:
    done = subprocess.run(
        command("run", bundle, inputs.image, "--out", out),
        check=False,
        timeout=120,
        env=ONE_THREAD,
        preexec_fn=lambda: os.closerange(0, 3),
    )
    assert done.returncode == 0
    assert (out / "results.jsonl").read_text().count("\n") == 1


@pytest.mark.slow
def test_no_home_no_room_for_temporary_files_and_no_locale(
    inputs: Inputs, bundle: Path, out: Path
) -> None:
    """matplotlib keeps its fonts at home, or else among temporary files."""
    nowhere = str(inputs.preset / "below")
    done = subprocess.run(
        command(
            "evaluate", bundle, "--data", inputs.camvid, "--patch", inputs.patch, "--html", out
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=ONE_THREAD | {"HOME": nowhere, "TMPDIR": nowhere, "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert contents(out.parent) == ["result"]

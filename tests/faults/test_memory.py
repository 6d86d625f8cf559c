"""Memory, descriptors and threads that are refused: exit code 6 and the way out, never a traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import (
    ONE_THREAD,
    Inputs,
    Outcome,
    assert_refused,
    contents,
    zmask_process,
)
from tests.faults.conftest import MIB, Forks

FEW = {"calibrate": 3, "run": 4}
"""Descriptors: the standard streams alone, or one beside them, which a bundle's folder takes."""

LOAD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
import zmask_export
from zmask_export.errors import BackendError
try:
    zmask_export.load(sys.argv[2], threads=1)
except BackendError as exc:
    sys.exit(f"Error: {exc}")
"""

LEFT_BEHIND = """
import os, signal, sys
from zmask_export.cli.limited import run_in_child

def work():
    if os.fork() == 0:
        signal.alarm(30)
        signal.pause()
    os.abort()

sys.exit(0 if run_in_child(work) is None else 1)
"""


def _verbs(inputs: Inputs, bundle: Path, out: Path) -> dict[str, tuple[object, ...]]:
    statistics = ("--calibration", bundle / "calibration.safetensors")
    images = ("--images", inputs.images)
    return {
        "build": ("build", *inputs.random, *statistics, "--target", "onnx", "--out", out),
        "calibrate": ("calibrate", *inputs.random, *images, "--out", out),
        "fit": (
            "fit", *inputs.random, *statistics, *images, "--patch", inputs.patch, "--epochs", 1,
            "--out", out,
        ),
        "craft": (
            "craft", *inputs.random, "--data", inputs.camvid, "--images", 1, "--epochs", 1,
            "--out", out,
        ),
        "evaluate": ("evaluate", bundle, "--data", inputs.camvid, "--patch", inputs.patch),
        "run": ("run", bundle, inputs.image, "--out", out),
    }  # fmt: skip


def _limited(mebibytes: int, *arguments: object) -> Outcome:
    """Run the installed program under a limit on what it may map."""
    limit = mebibytes * MIB
    return zmask_process(
        *arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    )


@pytest.mark.parametrize("mebibytes", [30, 100, 200, 300])
def test_a_process_too_small_for_its_imports_or_its_bundle(
    mebibytes: int, bundle: Path, inputs: Inputs, out: Path
) -> None:
    """From one in which Python barely starts, over OpenBLAS that exits, to a graph that does not fit."""
    outcome = _limited(mebibytes, "run", bundle, inputs.image, "--out", out)
    assert_refused(outcome, 6, "Out of memory.", f"limit of {mebibytes} MiB (ulimit -v)")
    assert contents(out.parent) == []


@pytest.mark.parametrize("verb", ["calibrate", "craft", "evaluate", "fit", "run"])
def test_a_verb_whose_work_does_not_fit(
    verb: str, forks: Forks, inputs: Inputs, bundle: Path, out: Path
) -> None:
    outcome = forks.run(*_verbs(inputs, bundle, out)[verb], memory=16 * MIB)
    assert_refused(outcome, 6, "Out of memory.", "ulimit -v")
    assert contents(out.parent) == []


@pytest.mark.slow
@pytest.mark.parametrize("mebibytes", [32, 128])
def test_a_build_whose_work_does_not_fit(
    mebibytes: int, forks: Forks, inputs: Inputs, bundle: Path, out: Path
) -> None:
    """At some of these limits the exporter's C libraries fault."""
    outcome = forks.run(*_verbs(inputs, bundle, out)["build"], memory=mebibytes * MIB)
    assert_refused(outcome, 6, "Out of memory.", "ulimit -v")
    assert contents(out.parent) == []


def test_under_a_limit_that_suffices_a_verb_does_what_it_does_without(
    forks: Forks, inputs: Inputs, bundle: Path
) -> None:
    arguments = ("run", bundle, inputs.image)
    limited, free = forks.run(*arguments, memory=1024 * MIB), forks.run(*arguments)
    assert (limited.code, limited.out) == (0, free.out), limited.err


def test_torch_that_does_not_fit(inputs: Inputs, out: Path) -> None:
    arguments = (*inputs.random, "--images", inputs.images, "--out", out)
    outcome = _limited(1024, "calibrate", *arguments)
    assert_refused(outcome, 6, "Out of memory.", "limit of 1024 MiB")
    assert contents(out.parent) == []


@pytest.mark.parametrize("mebibytes", [160, 280])
def test_a_bundle_that_python_cannot_load(mebibytes: int, bundle: Path) -> None:
    """At the first limit ONNX Runtime cannot be imported, at the second its session has no room."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(mebibytes * MIB), bundle],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=ONE_THREAD,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Out of memory.\n  Fix: Raise the limit of ")


def test_a_process_that_an_aborted_verb_left_behind_is_not_waited_for() -> None:
    command = [sys.executable, "-c", LEFT_BEHIND]
    assert subprocess.run(command, check=False, timeout=20).returncode == 0


@pytest.mark.parametrize("verb", FEW)
def test_too_few_descriptors(
    verb: str, forks: Forks, inputs: Inputs, bundle: Path, out: Path
) -> None:
    """No file is called damaged, or left out, because it could not be opened."""
    arguments = (*_verbs(inputs, bundle, out)[verb], "--on-bad-image", "skip")
    outcome = forks.run(*arguments, files=FEW[verb])
    assert_refused(outcome, 6, "may open no more files", "ulimit -n")
    assert contents(out.parent) == []

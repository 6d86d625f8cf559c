"""Compilers that are not here: exit code 6, at once; and one whose build is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from tests.conftest import Inputs, assert_refused, contents, zmask
from zmask_export.artifacts.scratch import scratch
from zmask_export.backends import tensorrt


def test_tensorrt_that_is_not_installed(
    inputs: Inputs, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    outcome = zmask("build", *inputs.random, "--target", "tensorrt", "--out", out)
    assert_refused(outcome, 6, "tensorrt cannot be imported", "pip install")
    assert contents(out.parent) == []


def test_tensorrt_without_a_gpu(inputs: Inputs, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    monkeypatch.setattr(tensorrt, "gpu_count", lambda: 0)
    outcome = zmask("build", *inputs.random, "--target", "tensorrt", "--out", out)
    assert_refused(outcome, 6, "this machine shows none", "--target tensorrt-rtx")
    assert contents(out.parent) == []


def test_tensorrt_rtx_that_is_not_installed(
    inputs: Inputs, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    outcome = zmask("build", *inputs.random, "--target", "tensorrt-rtx", "--out", out)
    assert_refused(outcome, 6, "tensorrt_rtx cannot be imported", "pip install")
    assert contents(out.parent) == []


SLOW_COMPILER = """
import os, time
open("started", "w").write(str(os.getpid()))
time.sleep(600)
"""
COMPILING = """
import sys
sys.path.insert(0, sys.argv[1])
from zmask_export.backends.tensorrt import _in_own_process
_in_own_process(b"", {"module": "slow_compiler", "flavour": "slow"})
"""


def _runs(number: int) -> bool:
    """A process that has ended may stay listed where nobody waits for it."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a compiler runs to its end")
def test_a_killed_build_takes_its_compiler_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_compiler.py").write_text(SLOW_COMPILER)
    build = subprocess.Popen(
        [sys.executable, "-c", COMPILING, str(tmp_path)],
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    while not (started := list(tmp_path.glob("zmask-compile-*/started"))):
        assert build.poll() is None
        time.sleep(0.01)
    while not (number := started[0].read_text()):
        time.sleep(0.01)
    build.kill()
    build.wait()
    deadline = time.monotonic() + 30
    while _runs(int(number)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert started[0].exists()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch("compile"):
        assert not started[0].parent.exists()

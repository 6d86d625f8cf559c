"""Compilers that are not here: exit code 6, at once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import Inputs, assert_refused, contents, zmask
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

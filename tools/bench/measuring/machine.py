"""The machine, the versions and the commit that figures belong to."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import onnxruntime as ort
import torch

from zmask_export import __version__
from zmask_export.profiling import machine
from zmask_export.spec import Spec


class Versions(Spec):
    """Of what takes part; None for what is not there."""

    zmask_export: str
    python: str
    torch: str
    onnxruntime: str
    tensorrt_rtx: str | None
    tensorrt: str | None


class Machine(machine.Machine):
    """Where the figures come from. ``dirty``: the tree differed from the commit."""

    commit: str | None
    dirty: bool | None
    versions: Versions


def describe(threads: int) -> Machine:
    """This machine.

    Args:
        threads: that every runner was given.
    """
    status = _git("status", "--porcelain")
    return Machine(
        **machine.describe(threads).model_dump(),
        commit=_git("rev-parse", "--short", "HEAD"),
        dirty=None if status is None else bool(status),
        versions=Versions(
            zmask_export=__version__,
            python=platform.python_version(),
            torch=torch.__version__,
            onnxruntime=ort.__version__,
            tensorrt_rtx=machine.installed("tensorrt-rtx-cu13"),
            tensorrt=machine.installed("tensorrt"),
        ),
    )


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

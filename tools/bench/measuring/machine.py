"""The machine, the versions and the commit that figures belong to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import onnxruntime as ort
import torch

from zmask_export import __version__
from zmask_export.spec import Spec


class Versions(Spec):
    """Of what takes part; None for what is not there."""

    zmask_export: str
    python: str
    torch: str
    onnxruntime: str
    tensorrt_rtx: str | None
    tensorrt: str | None


class Machine(Spec):
    """Where the figures come from.

    ``load`` is the number of processes that wanted a core in the minute before the run: above 0.5 the
    machine was not quiet. ``dirty``: the tree differed from the commit.
    """

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    system: str
    gpus: tuple[str, ...]
    load: float
    commit: str | None
    dirty: bool | None
    versions: Versions


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(threads: int) -> Machine:
    """This machine.

    Args:
        threads: that every runner was given.
    """
    status = _git("status", "--porcelain")
    return Machine(
        cpu=_cpu(),
        cores=cores(),
        threads=threads,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.machine()}",
        gpus=tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
        load=os.getloadavg()[0],
        commit=_git("rev-parse", "--short", "HEAD"),
        dirty=None if status is None else bool(status),
        versions=Versions(
            zmask_export=__version__,
            python=platform.python_version(),
            torch=torch.__version__,
            onnxruntime=ort.__version__,
            tensorrt_rtx=_version("tensorrt-rtx-cu13"),
            tensorrt=_version("tensorrt"),
        ),
    )


def _cpu() -> str:
    """The processor's name, with family and model where the name is vague."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in reversed(lines))
    found = {key.strip(): value.strip() for key, _, value in pairs}
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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

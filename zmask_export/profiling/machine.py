"""The machine and the versions that figures belong to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from zmask_export.backends.gpu import gpus
from zmask_export.backends.runner import cores
from zmask_export.spec import Spec

PACKAGES = (
    "numpy", "onnxruntime-gpu", "onnxruntime", "onnx", "onnx-ir", "torch", "torchvision",
    "tensorrt-rtx-cu13", "tensorrt",
)  # fmt: skip
"""Whose versions a figure may hang on."""


class Machine(Spec):
    """Where the figures come from.

    ``load`` is the number of processes that wanted a core in the minute before the run: above 0.5 the
    machine was not quiet.
    """

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    system: str
    gpus: tuple[str, ...]
    load: float


def describe(threads: int) -> Machine:
    """This machine.

    Args:
        threads: that every runner was given.
    """
    return Machine(
        cpu=_cpu(),
        cores=cores(),
        threads=threads,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.machine()}",
        gpus=tuple(gpu.name for gpu in gpus()),
        load=os.getloadavg()[0],
    )


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {name: version for name in packages if (version := installed(name)) is not None}
    return {"python": platform.python_version()} | found


def installed(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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

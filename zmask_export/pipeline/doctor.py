"""doctor: what this machine can build and run, and how to get what it cannot."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from zmask_export.backends.gpu import gpus
from zmask_export.backends.runner import cores
from zmask_export.pipeline import doctor_runners as runners
from zmask_export.profiling.machine import describe, installed
from zmask_export.spec import Spec

Group = Literal["machine", "packages", "runners", "compilers", "c++"]

BUILD_PACKAGES = (
    "torch", "torchvision", "onnx", "onnx-ir", "onnxscript", "safetensors", "pyyaml", "scipy",
    "jinja2", "matplotlib", "faster-coco-eval",
)  # fmt: skip
BUILD = "pip install 'zmask-export[build]'"
_OLDEST = (3, 10)
_GB = 1e9
_MEMORY_GB, _DISK_GB = 4, 2
"""What calibrating the demo network and building its bundle take, generously."""
_CXX = ("c++", "g++", "clang++", "cl")
_SECONDS = 10


class Finding(Spec):
    """One thing that is there or not.

    Attributes:
        group: where it belongs.
        what: its name.
        ok: whether it can be used.
        says: version, size or reason.
        fix: how to get it; None where it is there.
    """

    group: Group
    what: str
    ok: bool
    says: str
    fix: str | None = None


class Diagnosis(Spec):
    """All findings, and what follows from them.

    ``can`` says of each thing that a user may want to do whether it works here.
    """

    findings: tuple[Finding, ...]
    can: dict[str, bool]


def diagnose() -> Diagnosis:
    """Look at this machine. Nothing is changed, nothing is fetched."""
    findings = tuple(
        finding for look in (_machine, _packages, _runners, _compilers, _cxx) for finding in look()
    )
    return Diagnosis(findings=findings, can=_can(findings))


def _can(findings: Sequence[Finding]) -> dict[str, bool]:
    ok = {finding.what: finding.ok for finding in findings}
    build = all(f.ok for f in findings if f.group == "packages")
    return {
        "build bundles": build,
        "build tensorrt-rtx engines": build and ok["tensorrt-rtx compiler"],
        "build tensorrt engines": build and ok["tensorrt compiler"],
        "run bundles on the CPU": ok[runners.CPU],
        "run bundles on an NVIDIA GPU": ok[runners.CUDA]
        or ok["tensorrt-rtx engines"]
        or ok["tensorrt compiler"],
        "profile bundles": ok[runners.CPU] and ok["onnx"] and ok["jinja2"] and ok["matplotlib"],
        "compile the C++ runtime": ok["C++17 compiler"] and ok["CMake"],
    }


def _machine() -> Iterator[Finding]:
    machine = describe(cores())
    version = platform.python_version()
    new = tuple(int(part) for part in platform.python_version_tuple()[:2]) >= _OLDEST
    fix = None if new else "Install Python 3.10 or newer."
    yield Finding(group="machine", what="Python", ok=new, says=version, fix=fix)
    says = f"{machine.cpu}, {machine.cores} cores, {machine.system}"
    yield Finding(group="machine", what="processor", ok=True, says=says)
    memory = machine.memory_bytes / _GB
    enough = memory >= _MEMORY_GB
    fix = None if enough else f"Calibrate and build on a machine with {_MEMORY_GB} GB or more."
    yield Finding(group="machine", what="memory", ok=enough, says=f"{memory:.1f} GB", fix=fix)
    free = shutil.disk_usage(Path.cwd()).free / _GB
    enough = free >= _DISK_GB
    fix = None if enough else f"Free {_DISK_GB} GB here, or build elsewhere."
    yield Finding(group="machine", what="disk", ok=enough, says=f"{free:.1f} GB free", fix=fix)
    if not machine.gpus:
        yield Finding(
            group="machine", what="NVIDIA GPU", ok=False, says="the driver shows none",
            fix="Optional: bundles run on the CPU. With a GPU, install NVIDIA's driver.",
        )  # fmt: skip
    for gpu in gpus():
        says = f"{gpu.name}, compute capability {gpu.capability}, {gpu.memory_bytes / _GB:.0f} GB"
        yield Finding(group="machine", what="NVIDIA GPU", ok=True, says=says)


def _packages() -> Iterator[Finding]:
    for package in BUILD_PACKAGES:
        version = installed(package)
        yield Finding(
            group="packages", what=package, ok=version is not None, says=version or "not installed",
            fix=None if version else f"To build: {BUILD}.",
        )  # fmt: skip


def _runners() -> Iterator[Finding]:
    for found in (*runners.providers(), runners.rtx_engines()):
        yield Finding(group="runners", **found._asdict())


def _compilers() -> Iterator[Finding]:
    for found in runners.compilers():
        yield Finding(group="compilers", **found._asdict())


def _cxx() -> Iterator[Finding]:
    tools: tuple[tuple[str, tuple[str, ...], str], ...] = (
        (
            "C++17 compiler",
            (os.environ.get("CXX", ""), *_CXX),
            "Install g++ 9 or clang 9, or newer.",
        ),
        ("CMake", ("cmake",), "Install CMake 3.18 or newer (pip install cmake)."),
    )
    for what, names, fix in tools:
        path = next((found for name in names if name and (found := shutil.which(name))), None)
        says = "not found" if path is None else f"{Path(path).name}, {_version(path)}"
        yield Finding(
            group="c++", what=what, ok=path is not None, says=says, fix=None if path else fix
        )


def _version(path: str) -> str:
    """The version that a tool prints."""
    try:
        done = subprocess.run(  # noqa: S603
            [path, "--version"], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return "version unknown"
    match = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return match[0] if match else "version unknown"

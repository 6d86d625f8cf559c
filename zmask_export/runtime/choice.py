"""Which runner a bundle gets: the one asked for, or the best that can run here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from zmask_export.artifacts.manifest import EngineInfo, Manifest
from zmask_export.backends.onnx_runtime import Device, OnnxRuntimeRunner
from zmask_export.backends.runner import Runner
from zmask_export.backends.tensorrt import Flavour
from zmask_export.backends.tensorrt_runner import TensorRtRunner
from zmask_export.errors import BackendError, BackendUnavailableError, BundleError, UsageError
from zmask_export.runtime.inputs import BatchLimit

Backend = Literal[
    "auto", "onnxruntime", "onnxruntime-cpu", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx"
]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
ENGINES: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")
"""Flavours of compiled engines, the fastest first."""
ONNX_FILE = "protected.onnx"

_DEVICES: dict[Backend, Device] = {"onnxruntime-cpu": "cpu", "onnxruntime-cuda": "cuda"}


@dataclass(frozen=True)
class Choice:
    """A runner, how many images it takes, and why not another one.

    Attributes:
        runner: what runs.
        limit: images at once.
        passed_over: what ``auto`` would have preferred, and the reason against it, a sentence each.
    """

    runner: Runner
    limit: BatchLimit
    passed_over: tuple[str, ...] = ()


def open_runner(folder: Path, manifest: Manifest, backend: Backend, *, threads: int) -> Choice:
    """Open what runs a checked bundle.

    Args:
        folder: the bundle.
        manifest: of it.
        backend: ``auto`` takes an engine that can run on this machine's GPU, else ONNX Runtime, which
            takes a GPU where it can.
        threads: CPU threads of ONNX Runtime; 0 lets it choose.

    Raises:
        UsageError: an unknown backend, or a number of threads below 0.
        BundleError: the bundle has no graph.
        BackendUnavailableError: what was asked for cannot run here.
        BackendError: the runner refuses the graph.
    """
    if backend not in BACKENDS:
        raise UsageError(
            f"There is no backend {backend!r}.", fix=f"Choose among {', '.join(BACKENDS)}."
        )
    if threads < 0:
        raise UsageError(f"{threads} threads are not possible.", fix="Give 0 or more.")
    if backend == "tensorrt" or backend == "tensorrt-rtx":
        return _engine(folder, manifest, backend)
    passed_over = []
    if backend == "auto":
        built = {info.flavour for info in manifest.engines}
        for flavour in ENGINES:
            if flavour in built:
                try:
                    return _engine(folder, manifest, flavour)
                except BackendError as exc:
                    passed_over.append(exc.what)
    if ONNX_FILE not in manifest.files:
        raise BundleError(f"The bundle {folder} has no {ONNX_FILE}.", fix="Build it again.")
    device = _DEVICES.get(backend, "auto")
    runner = OnnxRuntimeRunner(
        (folder / ONNX_FILE).read_bytes(),
        threads=threads,
        device=device,
        precision=manifest.precision,
    )
    return of_graph(manifest, runner, tuple(passed_over))


def of_graph(manifest: Manifest, runner: Runner, passed_over: tuple[str, ...] = ()) -> Choice:
    """A runner of a bundle's graph, or of another one with its inputs and outputs."""
    fixed = manifest.batch
    return Choice(runner, BatchLimit(fixed, exact=fixed is not None), passed_over)


def _engine(folder: Path, manifest: Manifest, flavour: Flavour) -> Choice:
    """The bundle's engine of a flavour.

    Raises:
        BackendUnavailableError: the bundle has none, or it cannot run here.
        BackendError: its runtime refuses it.
    """
    info = next((info for info in manifest.engines if info.flavour == flavour), None)
    if info is None:
        raise BackendUnavailableError(
            f"The bundle {folder} has no {flavour} engine.",
            fix=f"Build it with --target {flavour}, or choose another backend.",
        )
    if info.file not in manifest.files:
        raise BundleError(f"The bundle {folder} has no {info.file}.", fix="Build it again.")
    runner = TensorRtRunner((folder / info.file).read_bytes(), flavour, info.capabilities)
    return Choice(runner, batch_limit(info))


def batch_limit(info: EngineInfo) -> BatchLimit:
    """Images that an engine takes at once."""
    if isinstance(info.batch, int):
        return BatchLimit(info.batch, exact=True)
    return BatchLimit(info.batch[2])

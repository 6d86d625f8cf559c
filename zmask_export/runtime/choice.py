"""Which runner a bundle gets: the one asked for, or the best that can run here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from zmask_export.artifacts.bundle import CheckedBundle
from zmask_export.artifacts.manifest import EngineInfo, Manifest
from zmask_export.backends.onnx_runtime import Device, OnnxRuntimeRunner
from zmask_export.backends.runner import Runner
from zmask_export.backends.tensorrt import Flavour
from zmask_export.backends.tensorrt_runner import TensorRtRunner
from zmask_export.errors import BackendError, BackendUnavailableError, UsageError
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


def runner_files(manifest: Manifest, backend: Backend) -> tuple[str, ...]:
    """Files of a bundle that :func:`open_runner` may take."""
    wanted = ENGINES if backend == "auto" else (backend,)
    engines = tuple(info.file for info in manifest.engines if info.flavour in wanted)
    return engines if backend in ENGINES else (*engines, ONNX_FILE)


def open_runner(bundle: CheckedBundle, backend: Backend, *, threads: int) -> Choice:
    """Open what runs a bundle.

    Args:
        bundle: with the bytes of :func:`runner_files`.
        backend: ``auto`` takes an engine that can run on this machine's GPU, else ONNX Runtime, which
            takes a GPU where it can.
        threads: CPU threads of ONNX Runtime; 0 lets it choose, within the cores of this process.

    Raises:
        UsageError: an unknown backend.
        BundleError: the bundle has no graph.
        BackendUnavailableError: what was asked for cannot run here.
        BackendError: the runner refuses the graph.
    """
    if backend not in BACKENDS:
        raise UsageError(
            f"There is no backend {backend!r}.", fix=f"Choose among {', '.join(BACKENDS)}."
        )
    if backend == "tensorrt" or backend == "tensorrt-rtx":
        return _engine(bundle, backend)
    manifest, passed_over = bundle.manifest, []
    if backend == "auto":
        built = {info.flavour for info in manifest.engines}
        for flavour in ENGINES:
            if flavour in built:
                try:
                    found = _engine(bundle, flavour)
                except BackendError as exc:
                    passed_over.append(exc.what)
                else:
                    return replace(found, passed_over=tuple(passed_over))
    runner = OnnxRuntimeRunner(
        bundle.read(ONNX_FILE),
        threads=threads,
        device=_DEVICES.get(backend, "auto"),
        precision=manifest.precision,
    )
    return of_graph(manifest, runner, tuple(passed_over))


def of_graph(manifest: Manifest, runner: Runner, passed_over: tuple[str, ...] = ()) -> Choice:
    """A runner of a bundle's graph, or of another one with its inputs and outputs."""
    fixed = manifest.batch
    return Choice(runner, BatchLimit(fixed, exact=fixed is not None), passed_over)


def _engine(bundle: CheckedBundle, flavour: Flavour) -> Choice:
    """The bundle's engine of a flavour.

    Raises:
        BundleError: its file is not in the bundle.
        BackendUnavailableError: the bundle has none, or it cannot run here.
        BackendError: its runtime refuses it.
    """
    info = next((info for info in bundle.manifest.engines if info.flavour == flavour), None)
    if info is None:
        raise BackendUnavailableError(
            f"The bundle {bundle.folder} has no {flavour} engine.",
            fix=f"Build it with --target {flavour}, or choose another backend.",
        )
    runner = TensorRtRunner(bundle.read(info.file), flavour, info.capabilities)
    return Choice(runner, batch_limit(info))


def batch_limit(info: EngineInfo) -> BatchLimit:
    """Images that an engine takes at once."""
    if isinstance(info.batch, int):
        return BatchLimit(info.batch, exact=True)
    return BatchLimit(info.batch[2])

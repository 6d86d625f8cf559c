"""inspect: what a bundle is, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zmask_export.artifacts.bundle import CheckedBundle, open_bundle
from zmask_export.artifacts.manifest import CALIBRATION_FILE, Manifest
from zmask_export.artifacts.signature import KeySource
from zmask_export.profiling.stock import Graph
from zmask_export.runtime.choice import ONNX_FILE
from zmask_export.spec import Spec

if TYPE_CHECKING:
    from zmask_export.artifacts.calibration import Calibration

Signature = Literal["none", "not checked", "holds"]
BUILD_EXTRA = "pip install 'zmask-export[build]'"


class Tap(Spec):
    """A hooked layer: its channels, and the kernels that it is pooled with in either set."""

    tap: str
    channels: int
    sets: tuple[str, ...]


class Defense(Spec):
    """The defense's settings, from the calibration file."""

    taps: tuple[Tap, ...]
    shallow_kernels: tuple[tuple[int, int], ...]
    deep_kernels: tuple[tuple[int, int], ...]
    grid: tuple[int, int]
    registration: str
    corners: int
    calibrated_on: int
    detection_auc: float | None


class Inspection(Spec):
    """What was found.

    Attributes:
        path: the bundle.
        bytes: of all its files, the manifest aside.
        manifest: checked, as every file's hash.
        signature: "none"; "not checked" where no key was given; "holds" under the key that was.
        defense: None where the package that reads calibration files is not here.
        graph: its parts and nodes; None where the package onnx is not here.
        notes: what is missing, and how to get it.
    """

    path: str
    bytes: int
    manifest: Manifest
    signature: Signature
    defense: Defense | None
    graph: Graph | None
    notes: tuple[str, ...]


def inspect_bundle(bundle: Path, verify_key: KeySource | None = None) -> Inspection:
    """Check a bundle's files and take stock of it.

    Raises:
        BundleError: no bundle, one that was changed, or not signed with ``verify_key``.
        InputError: ``verify_key`` is no public key.
        CalibrationError: its calibration file is damaged.
    """
    checked = open_bundle(bundle, lambda _: (ONNX_FILE, CALIBRATION_FILE), verify_key=verify_key)
    model = checked.read(ONNX_FILE)
    notes = []
    calibration, graph = _calibration(checked), _graph(model)
    if calibration is None:
        notes.append(f"Reading the calibration takes the package safetensors: {BUILD_EXTRA}.")
    if graph is None:
        notes.append(f"The layer list takes the package onnx: {BUILD_EXTRA}.")
    return Inspection(
        path=str(bundle),
        bytes=sum(file.bytes for file in checked.manifest.files.values()),
        manifest=checked.manifest,
        signature=_signature(checked),
        defense=None if calibration is None else _defense(calibration),
        graph=graph,
        notes=tuple(notes),
    )


def _signature(bundle: CheckedBundle) -> Signature:
    if bundle.verified:
        return "holds"
    return "none" if bundle.signature is None else "not checked"


def _calibration(bundle: CheckedBundle) -> Calibration | None:
    try:
        from zmask_export.artifacts import calibration
    except ModuleNotFoundError:
        return None
    return calibration.parse(bundle.read(CALIBRATION_FILE), bundle.folder / CALIBRATION_FILE)


def _graph(model: bytes) -> Graph | None:
    try:
        from zmask_export.profiling.layers import graph_of
    except ModuleNotFoundError:
        return None
    return graph_of(model)


def _defense(calibration: Calibration) -> Defense:
    header = calibration.header
    settings = header.defense
    taps = tuple(
        Tap(
            tap=tap,
            channels=calibration.mean[tap].size,
            sets=tuple(branch for branch, names, _ in settings.branches() if tap in names),
        )
        for tap in settings.taps
    )
    return Defense(
        taps=taps,
        shallow_kernels=settings.shallow_kernels,
        deep_kernels=settings.deep_kernels,
        grid=settings.grid,
        registration=settings.registration,
        corners=settings.corners,
        calibrated_on=header.images,
        detection_auc=None if header.fit is None else header.fit.roc.auc,
    )

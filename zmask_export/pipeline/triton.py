"""triton: a bundle to a model of an NVIDIA Triton model repository."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zmask_export import __version__
from zmask_export.artifacts.bundle import CheckedBundle, open_bundle
from zmask_export.artifacts.files import new_directory, recover, require_writable
from zmask_export.artifacts.manifest import Manifest
from zmask_export.errors import BundleError, OutputError, UsageError
from zmask_export.runtime.choice import ONNX_FILE
from zmask_export.serve.graph import THRESHOLD, per_image, with_default
from zmask_export.serve.triton import (
    CONFIG_FILE,
    MARK,
    MODEL_FILES,
    PLATFORMS,
    VERSION_FOLDER,
    Backend,
    ServedModel,
    ServedTensor,
    configuration,
    is_ours,
    signature,
)
from zmask_export.spec import Spec

ThresholdInput = Literal["optional", "per image", "required"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TritonOptions:
    """How to serve.

    Attributes:
        name: of the model; None takes the bundle's.
        backend: of Triton.
        max_batch: most images that Triton may join to a batch; 0 leaves batches to clients.
        force: replace a model of this program.
        verify_key: public key that the bundle must be signed with.
    """

    name: str | None = None
    backend: Backend = "onnxruntime"
    max_batch: int = 0
    force: bool = False
    verify_key: Path | None = None


class Served(Spec):
    """What was written.

    Attributes:
        folder: of the model.
        name: of the model.
        platform: Triton's.
        max_batch_size: 0 where Triton joins no requests.
        threshold: lambda0, calibrated.
        threshold_input: "optional" (a request may leave it out); "per image" (N, 1), negative for the
            calibrated one; "required" (1,).
        tensorrt: version that a plan was built with; None of other models.
    """

    folder: str
    name: str
    platform: str
    max_batch_size: int
    threshold: float
    threshold_input: ThresholdInput
    tensorrt: str | None


def write_model(bundle: Path, repository: Path, options: TritonOptions | None = None) -> Served:
    """Write ``repository/<name>/config.pbtxt`` and the model's file of version 1.

    Args:
        bundle: the folder that ``build`` wrote.
        repository: Triton's model repository; made where it is missing.
        options: how.

    Raises:
        UsageError: a name that is none, or batches that the bundle does not take.
        BundleError: no bundle, a changed one, one that is not signed with the key, or one without the
            backend's file.
        OutputError: the model exists, is not of this program, or cannot be written.
        BackendUnavailableError: Triton's schema is not installed.
    """
    options = options or TritonOptions()
    checked = open_bundle(bundle, _files, verify_key=options.verify_key)
    manifest = checked.manifest
    name = options.name or manifest.name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a model of Triton.",
            fix="Give --name with letters, digits, dots, dashes and underscores.",
        )
    folder = repository / name
    file = (_plan if options.backend == "tensorrt" else _graph)(checked, options)
    digest = hashlib.sha256(checked.manifest_bytes).hexdigest()
    notes = {MARK: __version__, "threshold": repr(manifest.threshold), "manifest_sha256": digest}
    text = configuration(
        ServedModel(name, options.backend, options.max_batch, file.inputs, file.outputs, notes)
    )
    _require_free(folder, force=options.force)
    with new_directory(folder, force=options.force) as partial:
        (partial / CONFIG_FILE).write_text(text, "utf-8")
        (partial / VERSION_FOLDER).mkdir()
        (partial / VERSION_FOLDER / MODEL_FILES[options.backend]).write_bytes(file.data)
    return Served(
        folder=str(folder),
        name=name,
        platform=PLATFORMS[options.backend],
        max_batch_size=options.max_batch,
        threshold=manifest.threshold,
        threshold_input=file.threshold,
        tensorrt=file.tensorrt,
    )


@dataclass(frozen=True)
class _File:
    """What Triton loads, and how it takes its threshold."""

    data: bytes
    inputs: list[ServedTensor]
    outputs: list[ServedTensor]
    threshold: ThresholdInput
    tensorrt: str | None = None


def _files(manifest: Manifest) -> tuple[str, ...]:
    return ONNX_FILE, *(engine.file for engine in manifest.engines if engine.flavour == "tensorrt")


def _graph(bundle: CheckedBundle, options: TritonOptions) -> _File:
    model, manifest = _onnx(bundle), bundle.manifest
    if not options.max_batch:
        model = with_default(model, manifest.threshold)
        return _File(model, *signature(model), "optional")
    if manifest.batch is not None:
        raise UsageError(
            f"The bundle takes batches of {manifest.batch} and no others.",
            fix="Leave out --max-batch, or build the bundle without --batch.",
        )
    model = per_image(model, manifest.threshold)
    return _File(model, *signature(model), "per image")


def _plan(bundle: CheckedBundle, options: TritonOptions) -> _File:
    engine = next((e for e in bundle.manifest.engines if e.flavour == "tensorrt"), None)
    if engine is None:
        raise BundleError(
            f"The bundle {bundle.folder} holds no TensorRT plan, and Triton runs no TensorRT-RTX engine.",
            fix="Build it with zmask-export[tensorrt] on a machine with an NVIDIA GPU, or serve it "
            "with --backend onnxruntime.",
        )
    if options.max_batch:
        raise UsageError(
            "A plan has one threshold a batch, so Triton cannot join requests for it.",
            fix="Leave out --max-batch: a request may hold several images; or take --backend "
            "onnxruntime.",
        )
    fixed = engine.batch if isinstance(engine.batch, int) else None
    inputs, outputs = signature(_onnx(bundle), fixed)
    return _File(bundle.read(engine.file), inputs, outputs, "required", engine.version)


def _onnx(bundle: CheckedBundle) -> bytes:
    if THRESHOLD not in {t.name for t in bundle.manifest.inputs}:
        raise BundleError(f"The bundle {bundle.folder} has no {ONNX_FILE}.", fix="Build it again.")
    return bundle.read(ONNX_FILE)


def _require_free(folder: Path, *, force: bool) -> None:
    recover(folder)
    if folder.exists() and not force:
        raise OutputError(
            f"{folder} exists already.", fix="Pass --force to replace it, or another --name."
        )
    if folder.exists() and not _is_model(folder):
        raise OutputError(
            f"{folder} is no model of zmask-export, and --force replaces nothing else.",
            fix="Choose another --name, or another repository.",
        )
    require_writable(folder, file=False)


def _is_model(folder: Path) -> bool:
    """Whether a folder holds what :func:`write_model` writes, and nothing else."""
    allowed = {Path(CONFIG_FILE), Path(VERSION_FOLDER)}
    allowed |= {Path(VERSION_FOLDER, file) for file in MODEL_FILES.values()}
    if folder.is_symlink() or not folder.is_dir():
        return False
    if not {path.relative_to(folder) for path in folder.rglob("*")} <= allowed:
        return False
    try:
        return is_ours((folder / CONFIG_FILE).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return False

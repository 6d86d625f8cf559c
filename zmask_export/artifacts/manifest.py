"""manifest.json: what a bundle is, and the sha256 of every file in it."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from zmask_export.artifacts import signature
from zmask_export.artifacts.files import sha256_file
from zmask_export.artifacts.folder import Folder
from zmask_export.artifacts.signature import SIGNATURE_FILE, KeySource
from zmask_export.errors import BundleError
from zmask_export.spec import (
    Bound,
    DetectorLimits,
    Fill,
    Policy,
    Precision,
    Preprocess,
    Size,
    Spec,
    Tolerances,
    explain,
)

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"
UNLISTED = frozenset({FILE_NAME, SIGNATURE_FILE})
CALIBRATION_FILE = "calibration.safetensors"
PARITY_FILE = "parity.json"
LATENCY_FILE = "latency.json"
REPORT_FILE = "report.html"
SBOM_FILE = "sbom.cdx.json"
_MAX_BYTES = 4 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class TensorInfo(Spec):
    """An input or output of the engine.

    Attributes:
        name: as the graph calls it.
        dtype: such as float32.
        shape: sides; "N" stands for a dynamic batch.
        range: what the values lie in, in words.
        meaning: in words.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    range: str
    meaning: str


class FileInfo(Spec):
    """A file of the bundle.

    Attributes:
        sha256: of its bytes.
        bytes: its size.
    """

    sha256: Hash
    bytes: Annotated[int, Field(ge=0)]


class EngineInfo(Spec):
    """A compiled engine of the bundle.

    Attributes:
        file: its name in the bundle.
        flavour: "tensorrt" or "tensorrt-rtx".
        version: of the compiler.
        capabilities: compute capabilities that were asked for; empty where the compiler chose.
        activation_bytes: memory for activations, as the compiler says; None where it does not.
        weight_bytes: memory for weights, as the compiler says; None where it does not.
        tf32: whether the compiler may use TF32 arithmetic.
        batch: smallest, tuned and largest batch, or the one batch that it takes.
        convolutions: how many of the graph's compute in which precision; empty in bundles from before there
            were others than fp32, whose engines have TF32 on.
        compiled: how many of the finished engine's, as the compiler lists its layers; empty likewise.
    """

    file: str
    flavour: str
    version: str
    capabilities: tuple[str, ...]
    activation_bytes: int | None
    weight_bytes: int | None
    tf32: bool
    convolutions: dict[str, int] = Field(default_factory=dict)
    compiled: dict[str, int] = Field(default_factory=dict)
    batch: tuple[int, int, int] | int


class Manifest(Spec):
    """The content of manifest.json.

    Attributes:
        schema_version: of this form; another one is refused.
        tool_version: of the package that wrote it.
        name: of the bundle's folder.
        model: name of the network.
        policy: what the engine does with the mask.
        precision: what the network computes in.
        opset: of the ONNX graph.
        classes: names by index; a detector's begin with the background.
        limits: a detector's limits that were asked for.
        input_size: height and width of the engine's image.
        batch: the graph's fixed batch; None for a dynamic one.
        preprocess: normalisation, which is inside the graph.
        fill: what a covered pixel becomes.
        threshold: the calibrated lambda0, what the runtimes take by default.
        inputs: of the graph and of every engine.
        outputs: the same.
        engines: compiled ones; empty with ``--target onnx``.
        tolerances: the parity contract that the build kept.
        weights_sha256: fingerprint of the network's weights.
        calibration_sha256: of the calibration file that was built with.
        versions: package to version, of what the build used.
        files: every file of the bundle but the manifest.
    """

    schema_version: int
    tool_version: str
    name: str
    model: str
    policy: Policy
    precision: Precision
    opset: int
    classes: tuple[str, ...]
    limits: DetectorLimits = DetectorLimits()
    input_size: Size
    batch: int | None
    preprocess: Preprocess
    fill: Fill
    threshold: Bound
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    engines: tuple[EngineInfo, ...]
    tolerances: Tolerances
    weights_sha256: Hash
    calibration_sha256: Hash
    versions: dict[str, str]
    files: dict[str, FileInfo]

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, FileInfo]) -> dict[str, FileInfo]:
        for name in files:
            if not _PLAIN_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no plain file name")
        return files


def describe(data: bytes) -> FileInfo:
    """Size and hash of a file's bytes."""
    return FileInfo(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def describe_files(folder: Path) -> dict[str, FileInfo]:
    """Size and hash of every file in a folder, the manifest and its signature left out."""
    paths = [path for path in sorted(folder.iterdir()) if path.name not in UNLISTED]
    return {p.name: FileInfo(sha256=sha256_file(p), bytes=p.stat().st_size) for p in paths}


def is_bundle(folder: Path) -> bool:
    """Whether a folder is empty, or holds a manifest and nothing that the manifest does not list."""
    if not folder.is_dir():
        return False
    try:
        with Folder(folder) as opened:
            present = opened.names()
            if not present:
                return True
            manifest = Manifest.model_validate_json(opened.read(FILE_NAME, _MAX_BYTES))
    except (OSError, ValidationError):
        return False
    return present <= UNLISTED | manifest.files.keys()


@dataclass(frozen=True)
class CheckedBundle:
    """A bundle whose every file was read once, and held against its manifest.

    Attributes:
        folder: where it was found.
        manifest, manifest_bytes: what it is, and the content of manifest.json.
        signature: the content of manifest.sig; None where there is none.
        verified: whether the signature was checked, and holds.
        kept: the very bytes that were hashed, of files that were asked for.
    """

    folder: Path
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes | None
    verified: bool
    kept: dict[str, bytes]

    def read(self, name: str) -> bytes:
        """The bytes of a file that was kept.

        Raises:
            BundleError: the bundle has none of that name.
        """
        if name not in self.kept:
            raise BundleError(f"The bundle {self.folder} has no {name}.", fix="Build it again.")
        return self.kept[name]


def open_bundle(
    folder: Path,
    keep: Callable[[Manifest], Iterable[str]] = lambda _: (),
    *,
    verify_key: KeySource | None = None,
) -> CheckedBundle:
    """Read a bundle: check every file of it against its manifest, and the manifest against a signature.

    Nothing but the manifest is parsed, and that only after its signature held. Every file is read once,
    through the folder that was opened first: what changes on disk meanwhile is noticed, or not seen.

    Args:
        folder: the bundle.
        keep: from the manifest to the files whose bytes the caller wants.
        verify_key: public key that it must be signed with; None takes signed and unsigned ones.

    Raises:
        BundleError: no bundle, not signed with the key, or a damaged, missing, changed or extra file.
        InputError: ``verify_key`` is no such key.
        BackendUnavailableError: there is a key, but the package cryptography is not here.
    """
    key = None if verify_key is None else signature.key_bytes(verify_key)
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(Folder(folder))
            data = opened.read(FILE_NAME, _MAX_BYTES)
        except OSError as exc:
            raise _no_bundle(folder) from exc
        if len(data) > _MAX_BYTES:
            raise _bad(folder, "has a manifest of enormous size")
        present = opened.names()
        signed = signature.read(opened) if SIGNATURE_FILE in present else None
        if key is not None:
            signature.require(folder, key, signed, data)
        manifest = _parse(folder, data)
        for name in sorted((present - UNLISTED) ^ manifest.files.keys()):
            said = "lacks the file" if name not in present else "has an extra file"
            raise _bad(folder, f"{said} {name if name.isprintable() else ascii(name)}")
        wanted = frozenset(keep(manifest))
        kept = {}
        for name, info in manifest.files.items():
            try:
                content = opened.check(name, info.bytes, info.sha256, keep=name in wanted)
            except OSError as exc:
                raise _bad(folder, f"has something else than a file called {name}") from exc
            except ValueError as exc:
                raise _bad(folder, f"has a changed file {name}") from exc
            if content is not None:
                kept[name] = content
    return CheckedBundle(folder, manifest, data, signed, key is not None, kept)


def read_manifest(folder: Path) -> Manifest:
    """:func:`open_bundle`, where only the manifest is wanted."""
    return open_bundle(folder).manifest


def _parse(folder: Path, data: bytes) -> Manifest:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise _no_bundle(folder) from exc
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as exc:
        raise _bad(folder, f"has a damaged manifest ({explain(exc)})") from exc
    if manifest.schema_version != SCHEMA_VERSION:
        raise _bad(folder, f"has schema version {manifest.schema_version}, not {SCHEMA_VERSION}")
    return manifest


def _no_bundle(folder: Path) -> BundleError:
    return BundleError(
        f"{folder} is no bundle: it has no readable {FILE_NAME}.",
        fix="Give the folder that zmask-export build wrote.",
    )


def _bad(folder: Path, what: str) -> BundleError:
    return BundleError(f"The bundle {folder} {what}.", fix="Build it again, or copy it again.")

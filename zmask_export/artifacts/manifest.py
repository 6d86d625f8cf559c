"""manifest.json: what a bundle is, and the sha256 of every file in it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from zmask_export.artifacts.files import sha256_file
from zmask_export.artifacts.signature import SIGNATURE_FILE
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
)

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"
UNLISTED = frozenset({FILE_NAME, SIGNATURE_FILE})
CALIBRATION_FILE = "calibration.safetensors"
PARITY_FILE = "parity.json"
LATENCY_FILE = "latency.json"
REPORT_FILE = "report.html"
SBOM_FILE = "sbom.cdx.json"
MAX_BYTES = 4 << 20
"""No manifest is larger."""
_BLANK = "0" * 64
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
        checksum: sha256 of manifest.json itself with 64 zeros in this place; None in bundles from before
            there was one.
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
    checksum: Hash | None = None

    def sealed(self) -> Manifest:
        """The same with its checksum."""
        blank = self.model_copy(update={"checksum": _BLANK})
        checksum = hashlib.sha256(blank.to_bytes()).hexdigest()
        return self.model_copy(update={"checksum": checksum})

    def to_bytes(self) -> bytes:
        """The content of manifest.json."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    def explains(self, data: bytes) -> bool:
        """Whether ``data``, which this was read from, has the checksum that it states, if any."""
        if self.checksum is None:
            return True
        blank = data.replace(_entry(self.checksum), _entry(_BLANK))
        return hashlib.sha256(blank).hexdigest() == self.checksum

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, FileInfo]) -> dict[str, FileInfo]:
        for name in files:
            if not _PLAIN_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no plain file name")
        return files


def _entry(checksum: str) -> bytes:
    return f'"checksum": "{checksum}"'.encode()


def describe(data: bytes) -> FileInfo:
    """Size and hash of a file's bytes."""
    return FileInfo(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def describe_files(folder: Path) -> dict[str, FileInfo]:
    """Size and hash of every file in a folder, the manifest and its signature left out."""
    paths = [path for path in sorted(folder.iterdir()) if path.name not in UNLISTED]
    return {p.name: FileInfo(sha256=sha256_file(p), bytes=p.stat().st_size) for p in paths}

"""The calibration file: statistics, fitted parameters and settings in one safetensors file.

Tensors: ``mean/<tap>`` and ``std/<tap>`` (float32, shape (C,)) and, once fitted, ``fusion``
(float32, shape (8,): w1, b1, w2, b2, w3, b3, w4, b4 of the fusion block). The JSON header holds a
:class:`CalibrationHeader`. Never a pickle.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import save as save_tensors

from zmask_export.artifacts.files import write_bytes
from zmask_export.artifacts.headed import read_headed
from zmask_export.errors import CalibrationError
from zmask_export.spec import Bound, DefenseSpec, Preprocess, Size, Spec

FORMAT_VERSION = 1
_KEY = "zmask-export"
_MAX_BYTES = 256 << 20


class RocSummary(Spec):
    """What fitting saw: detection of patched against clean images by the score d.

    Attributes:
        auc: area under the ROC curve.
        true_positive_rate: share of patched images flagged at the threshold.
        false_positive_rate: share of clean images flagged at the threshold.
        positives: how many patched images.
        negatives: how many clean ones.
        rule: how the threshold was chosen.
    """

    auc: float
    true_positive_rate: float
    false_positive_rate: float
    positives: int
    negatives: int
    rule: str


class FitSummary(Spec):
    """How the fusion block was fitted, and whether its deep gate lives.

    Attributes:
        images: how many, each clean and with every patch.
        epochs: of the fit.
        loss: of the last epoch.
        mask_iou: mean IoU of covered cells and patch.
        clean_masked: mean share of cells that clean images would have covered.
        gate_range: range of g over the deep heatmaps of the fit set: a gate that hardly moves means that
            HD acts through the score alone.
        patches: names of the files.
        roc: what the threshold was chosen on.
        clean_scores: d of every clean image.
        patched_scores: d of every patched image.
    """

    images: int
    epochs: int
    loss: float
    mask_iou: float
    clean_masked: float
    gate_range: tuple[float, float]
    patches: tuple[str, ...]
    roc: RocSummary
    clean_scores: tuple[float, ...]
    patched_scores: tuple[float, ...]


class CalibrationHeader(Spec):
    """The JSON header of a calibration file.

    Attributes:
        format_version: of the file; another one is refused.
        tool_version: of the package that wrote it.
        model: name of the network.
        classes: how many the network has.
        weights_sha256: fingerprint of the network's weights; the file is refused for others.
        preprocess: normalisation that the statistics were measured with.
        input_size: height and width of the network's image.
        defense: taps, kernels, grid and what else shapes the defense.
        images: how many the statistics rest on.
        dataset_sha256: of those images.
        threshold: lambda0; None before fitting.
        fit: how it was fitted; None before fitting.
    """

    format_version: int
    tool_version: str
    model: str
    classes: Annotated[int, Field(ge=1)]
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    preprocess: Preprocess
    input_size: Size
    defense: DefenseSpec
    images: Annotated[int, Field(ge=1)]
    dataset_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    threshold: Bound | None = None
    fit: FitSummary | None = None


@dataclass(frozen=True)
class Calibration:
    """A calibration file in memory.

    Attributes:
        header: settings and provenance.
        mean: tap to per-channel mean, float32 (C,).
        std: tap to per-channel standard deviation, float32 (C,), 0 for a dead channel.
        fusion: the eight fusion parameters, float32 (8,), or None before fitting.
    """

    header: CalibrationHeader
    mean: dict[str, NDArray[np.float32]]
    std: dict[str, NDArray[np.float32]]
    fusion: NDArray[np.float32] | None = None

    @property
    def fitted(self) -> bool:
        """Whether fusion parameters and threshold are there."""
        return self.fusion is not None and self.header.threshold is not None

    def require_fitted(self) -> tuple[NDArray[np.float32], float]:
        """Fusion parameters and threshold.

        Raises:
            CalibrationError: the file holds statistics only.
        """
        if self.fusion is None or self.header.threshold is None:
            raise CalibrationError(
                "The calibration holds statistics only, no fitted fusion block.",
                fix="Run zmask-export fit on it first.",
            )
        return self.fusion, self.header.threshold

    def with_header(self, **changes: Any) -> Calibration:
        """A copy with changed header fields."""
        return replace(self, header=self.header.model_copy(update=changes))

    def to_bytes(self) -> bytes:
        """The file's bytes; equal calibrations give equal bytes."""
        tensors: dict[str, NDArray[Any]] = {}
        for tap in self.header.defense.taps:
            tensors[f"mean/{tap}"] = self.mean[tap]
            tensors[f"std/{tap}"] = self.std[tap]
        if self.fusion is not None:
            tensors["fusion"] = self.fusion
        return save_tensors(tensors, metadata={_KEY: self.header.model_dump_json()})

    def sha256(self) -> str:
        """sha256 of the file's bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_bytes(path, self.to_bytes())


def load(path: Path) -> Calibration:
    """Read and check a calibration file.

    Raises:
        CalibrationError: missing, cut short, foreign, of another format version, or inconsistent
            (a tap without statistics, a shape that does not fit, a value that is not finite).
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _bad(path, f"is larger than {_MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as exc:
        raise CalibrationError(
            f"The calibration {path} cannot be read ({exc.strerror}).",
            fix="Run zmask-export calibrate, or give the right path with --calibration.",
        ) from exc
    return parse(data, path)


def parse(data: bytes, path: Path) -> Calibration:
    """As :func:`load`, of bytes that were read already.

    Args:
        data: the file's content.
        path: of the file, for messages.

    Raises:
        CalibrationError: as there.
    """
    header, tensors = read_headed(
        data,
        _KEY,
        CalibrationHeader,
        FORMAT_VERSION,
        foreign="is a safetensors file, but not one of zmask-export",
        bad=functools.partial(_bad, path),
    )
    return _assemble(path, header, tensors)


def _assemble(
    path: Path, header: CalibrationHeader, tensors: dict[str, NDArray[Any]]
) -> Calibration:
    mean, std = {}, {}
    for tap in header.defense.taps:
        mean[tap] = _vector(path, tensors, f"mean/{tap}")
        std[tap] = _vector(path, tensors, f"std/{tap}")
        if mean[tap].shape != std[tap].shape:
            raise _bad(path, f"has a mean and a std of different length for {tap}")
        if (std[tap] < 0).any():
            raise _bad(path, f"has a negative standard deviation for {tap}")
    fusion = _vector(path, tensors, "fusion") if "fusion" in tensors else None
    if fusion is not None and fusion.shape != (8,):
        raise _bad(path, f"has {fusion.size} fusion parameters instead of 8")
    return Calibration(header, mean, std, fusion)


def _vector(path: Path, tensors: dict[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    if name not in tensors:
        raise _bad(path, f"lacks the tensor {name}")
    vector = tensors[name]
    if vector.dtype != np.float32 or vector.ndim != 1 or not vector.size:
        raise _bad(path, f"has a tensor {name} that is no float32 vector")
    if not np.isfinite(vector).all():
        raise _bad(path, f"has a value in {name} that is not finite")
    return vector


def _bad(path: Path, what: str) -> CalibrationError:
    return CalibrationError(
        f"The calibration {path} {what}.",
        fix="Write it again with zmask-export calibrate and fit.",
    )

"""The statistics of HN and FPDA in one safetensors file.

Tensors: ``hyperneuron/mean`` and ``hyperneuron/std`` (float32, (C, h, w)), ``fpda/mean`` and ``fpda/std``
(float32, (h, w)). The JSON header holds a :class:`RivalHeader`. Never a pickle.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import save as save_tensors

from zmask_export.artifacts.files import write_bytes
from zmask_export.artifacts.headed import read_headed
from zmask_export.defense.baselines.fpda import Fpda
from zmask_export.defense.baselines.hyperneuron import HyperNeuron
from zmask_export.errors import CalibrationError
from zmask_export.spec import Preprocess, Size, Spec

FORMAT_VERSION = 1
_KEY = "zmask-export-rivals"
_SHAPES = {"hyperneuron": 3, "fpda": 2}
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class RivalHeader(Spec):
    """What the statistics belong to.

    Attributes:
        format_version: of this file.
        tool_version: what wrote it.
        model: the network.
        weights_sha256: fingerprint of its weights.
        preprocess: its normalisation.
        input_size: (H, W) of the images.
        tap: the layer.
        images: how many were measured.
        dataset_sha256: fingerprint of them.
    """

    format_version: int = FORMAT_VERSION
    tool_version: str
    model: str
    weights_sha256: _Sha256
    preprocess: Preprocess
    input_size: Size
    tap: str
    images: Annotated[int, Field(ge=1)]
    dataset_sha256: _Sha256


@dataclass(frozen=True)
class RivalStatistics:
    """Both detectors of one layer, with what they were measured on."""

    header: RivalHeader
    hyperneuron: HyperNeuron
    fpda: Fpda

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; equal statistics give equal bytes.

        Raises:
            OutputError: it cannot be written.
        """
        tensors = {
            f"{name}/{kind}": detector.get_buffer(kind).cpu().contiguous().numpy()
            for name, detector in (("hyperneuron", self.hyperneuron), ("fpda", self.fpda))
            for kind in ("mean", "std")
        }
        write_bytes(path, save_tensors(tensors, metadata={_KEY: self.header.model_dump_json()}))


def load(path: Path, *, positive: bool = False) -> RivalStatistics:
    """Read and check a file of statistics.

    Args:
        path: the file.
        positive: let FPDA count over-activation only.

    Raises:
        CalibrationError: missing, cut short, foreign, of another format version, or inconsistent.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise _bad(path, f"cannot be read ({exc.strerror})") from exc
    header, tensors = read_headed(
        data,
        _KEY,
        RivalHeader,
        FORMAT_VERSION,
        foreign="holds no statistics of HN and FPDA",
        bad=functools.partial(_bad, path),
    )
    neurons, positions = (_pair(path, tensors, name) for name in _SHAPES)
    if neurons[0].shape[1:] != positions[0].shape:
        raise _bad(path, "has statistics of HN and FPDA of different sizes")
    fpda = Fpda(*map(torch.from_numpy, positions), positive=positive)
    return RivalStatistics(header, HyperNeuron(*map(torch.from_numpy, neurons)), fpda)


def _pair(path: Path, tensors: dict[str, NDArray[Any]], name: str) -> list[NDArray[np.float32]]:
    """Mean and standard deviation of one detector."""
    found = []
    for key in (f"{name}/mean", f"{name}/std"):
        array = tensors.get(key)
        if array is None or array.dtype != np.float32 or array.ndim != _SHAPES[name]:
            raise _bad(path, f"lacks {key} as a float32 array of {_SHAPES[name]} dimensions")
        if not array.size or not np.isfinite(array).all():
            raise _bad(path, f"has a value in {key} that is not finite, or none at all")
        found.append(array)
    if found[0].shape != found[1].shape:
        raise _bad(path, f"has a mean and a deviation of different shapes for {name}")
    if (found[1] < 0).any():
        raise _bad(path, f"has a negative standard deviation for {name}")
    return found


def _bad(path: Path, what: str) -> CalibrationError:
    return CalibrationError(
        f"The statistics {path} {what}.", fix="Measure them again on clean images."
    )

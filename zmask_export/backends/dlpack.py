"""Arrays of other libraries, without a copy: DLPack in main memory and on NVIDIA GPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from zmask_export.backends.gpu import wait_for_default_stream
from zmask_export.backends.runner import DeviceArray, DeviceKind
from zmask_export.errors import BackendUnavailableError, ShapeError

_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13
"""Device types of DLPack."""
_DEFAULT_STREAM = 1
"""DLPack's name of CUDA's legacy default stream."""


def view(source: Any) -> NDArray[Any] | DeviceArray:
    """An array of any library as NumPy's, or as a float32 array on a GPU; never a copy.

    Args:
        source: a NumPy array, or what has ``__dlpack__``, such as a tensor of PyTorch or CuPy.

    Raises:
        ShapeError: no array, one of a device or dtype that cannot be shared, or on a GPU one that is
            not contiguous float32.
    """
    if isinstance(source, np.ndarray):
        return source
    if not (hasattr(source, "__dlpack__") and hasattr(source, "__dlpack_device__")):
        raise ShapeError(
            f"The engine takes arrays, got {type(source).__name__}.",
            fix="Give a NumPy array, a tensor with __dlpack__, or a list of uint8 (H, W, 3) images.",
        )
    try:
        kind, number = (int(part) for part in source.__dlpack_device__())
        if kind in (_CPU, _CUDA_HOST):
            return np.from_dlpack(source)
        on_gpu = kind in (_CUDA, _CUDA_MANAGED)
        capsule = source.__dlpack__(stream=_DEFAULT_STREAM) if on_gpu else None
    except (BufferError, RuntimeError, TypeError, ValueError) as exc:
        raise _refused(exc) from exc
    if capsule is None:
        raise ShapeError(
            f"The image lies on a device of DLPack's type {kind}.",
            fix="Copy it to main memory or to an NVIDIA GPU.",
        )
    wait_for_default_stream(number)
    return bound(capsule, "cuda", number)


def bound(capsule: Any, kind: DeviceKind, number: int) -> DeviceArray:
    """What a DLPack capsule describes, to be read where it lies.

    Raises:
        ShapeError: not contiguous, or not float32.
        BackendUnavailableError: this ONNX Runtime cannot read capsules.
    """
    if not hasattr(ort.OrtValue, "from_dlpack"):
        raise BackendUnavailableError(
            f"ONNX Runtime {ort.__version__} cannot read arrays of other libraries.",
            fix="Install a newer onnxruntime, or copy the image to main memory.",
        )
    try:
        value = ort.OrtValue.from_dlpack(capsule)
    except (RuntimeError, TypeError, ValueError) as exc:
        raise _refused(exc) from exc
    if value.data_type() != "tensor(float)":
        raise ShapeError(
            f"On a GPU the engine takes float32, got {value.data_type()}.",
            fix="Convert it to float32 (N, 3, H, W) in [0, 1] there.",
        )
    return DeviceArray(value.data_ptr(), tuple(value.shape()), kind, number, value)


def _refused(exc: BaseException) -> ShapeError:
    said = " ".join(str(exc).split())[-200:].rstrip(".")
    return ShapeError(
        f"The array cannot be shared ({said}).",
        fix="Give a contiguous uint8 or float32 array that needs no gradient.",
    )

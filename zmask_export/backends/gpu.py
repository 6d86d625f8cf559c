"""What the NVIDIA driver says, asked without any CUDA package."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

from zmask_export.errors import BackendError

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_DEFAULT_STREAM = ctypes.c_void_p(1)
"""CU_STREAM_LEGACY."""
_NAME_BYTES = 128


def _driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


@functools.cache
def gpu_count() -> int:
    """Number of NVIDIA GPUs that the driver shows; 0 without a driver."""
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def compute_capability(number: int = 0) -> str | None:
    """Compute capability of a GPU, such as "8.9"; None where there is no such GPU."""
    driver = _driver()
    device = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), number) != 0:
        return None
    parts = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int(0)
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
            return None
        parts.append(str(value.value))
    return ".".join(parts)


def wait_for_default_stream(number: int) -> None:
    """Return when everything that was queued on a GPU's default stream is done.

    Raises:
        BackendError: the driver reports a fault, or there is no such GPU.
    """
    driver = _driver()
    device, context = ctypes.c_int(0), ctypes.c_void_p()
    # The primary context is the one that every CUDA library of the process shares.
    if (
        driver is None
        or driver.cuDeviceGet(ctypes.byref(device), number) != 0
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0
    ):
        raise BackendError(
            f"The NVIDIA driver gives no access to GPU {number}.",
            fix="Look at nvidia-smi, or give the image in main memory.",
        )
    try:
        code = driver.cuCtxPushCurrent_v2(context)
        if code == 0:
            code = driver.cuStreamSynchronize(_DEFAULT_STREAM)
            driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    if code != 0:
        raise BackendError(
            f"Waiting for GPU {number} failed (CUDA driver error {code}).",
            fix="Look at nvidia-smi; start the program again.",
        )


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, compute capability such as "8.9", and memory in bytes."""

    name: str
    capability: str
    memory_bytes: int


def gpus() -> list[Gpu]:
    """Every GPU, in the driver's order; none without a driver."""
    return [_describe(number) for number in range(gpu_count())]


def _describe(number: int) -> Gpu:
    driver = ctypes.CDLL("libcuda.so.1")
    device, size = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    text = name.value.decode("utf-8", "replace")
    return Gpu(text, compute_capability(number) or "unknown", size.value)

"""The NVIDIA GPUs that the driver shows, asked without any package."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from zmask_export.backends.onnx_runtime import gpu_count

_NAME_BYTES = 128
_CAPABILITY = (75, 76)
"""The driver's numbers of the attributes compute capability major and minor."""


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, compute capability such as "8.9", and memory in bytes."""

    name: str
    capability: str
    memory_bytes: int


def gpus() -> list[Gpu]:
    """Every GPU, in the driver's order; none without a driver."""
    if gpu_count() == 0:
        return []
    driver = ctypes.CDLL("libcuda.so.1")
    return [_describe(driver, index) for index in range(gpu_count())]


def _describe(driver: ctypes.CDLL, index: int) -> Gpu:
    device, value = ctypes.c_int(), ctypes.c_int()
    name, size = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    version = []
    for attribute in _CAPABILITY:
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        version.append(str(value.value))
    return Gpu(name.value.decode("utf-8", "replace"), ".".join(version), size.value)

"""The NVIDIA GPUs of this machine by name, as the driver gives them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from zmask_export.backends.gpu import compute_capability, gpu_count

_NAME_BYTES = 128


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

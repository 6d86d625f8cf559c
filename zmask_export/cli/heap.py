"""glibc's heap, told to keep what large tensors leave behind.

By itself it maps a block of more than 32 MiB anew for every operation and gives it back after that; the
system then clears every page of it: a quarter of a build's time.
"""

from __future__ import annotations

import ctypes
import os

MMAP_THRESHOLD = 256 << 20
"""Bytes; larger blocks are still mapped one by one."""

TRIM_THRESHOLD = 1 << 30
"""Bytes that are kept free at most."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed() -> bool:
    """Set both thresholds; whether that was done: not without glibc, nor where the user set the heap."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name.startswith(_SETTINGS) for name in os.environ):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
    )

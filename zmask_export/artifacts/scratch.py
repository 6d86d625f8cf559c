"""Temporary folders that do not pile up where runs are killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A temporary folder ``zmask-<purpose>-...``, gone after the block.

    It is locked meanwhile. A killed run's folder stays, but its lock is free: the next call for the same
    purpose removes it.

    Raises:
        OSError: it cannot be made.
    """
    prefix = f"zmask-{purpose}-"
    if fcntl is None:
        with tempfile.TemporaryDirectory(prefix=prefix) as name:
            yield Path(name)
        return
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_unused(left)
    folder, descriptor = _locked(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked(prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        # Before the lock it may be taken for a killed run's.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, _FLAGS)
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, descriptor
            os.close(descriptor)


def _remove_unused(folder: Path) -> None:
    try:
        descriptor = os.open(folder, _FLAGS)
    except OSError:
        return
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # somebody works in it
        return
    finally:
        os.close(descriptor)

"""Hashes, and writes that are whole or did not happen."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from zmask_export.errors import OutputError

_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def require_writable(path: Path, *, file: bool = True) -> None:
    """Refuse a place for a result before the work for it starts.

    Args:
        path: where the result shall be.
        file: whether the result is a file, which no folder can make room for.

    Raises:
        OutputError: ``path`` is no name, is a folder where a file shall be, or lies in something
            that is no folder or may not be written to.
    """
    if not path.name:
        raise OutputError(
            f"{path} is a folder, not a name for a result.", fix="Give a name inside it."
        )
    if file and path.is_dir():
        raise output_error(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    above = path.parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise output_error(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(above, os.W_OK | os.X_OK):
        raise output_error(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file through a temporary one beside it, flushed to disk, then renamed.

    Raises:
        OutputError: the folder is missing, read-only or full; nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise output_error(path, exc) from exc


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def output_error(path: Path, exc: OSError) -> OutputError:
    """The error for a failed write to ``path``."""
    if exc.errno == errno.ENOSPC:
        return OutputError(
            f"{path} cannot be written: the disk is full.",
            fix="Free space, or choose another disk.",
        )
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(
            f"{path} cannot be written: the folder is read-only ({exc.strerror}).",
            fix="Choose a folder that you may write to.",
        )
    return OutputError(
        f"{path} cannot be written ({exc.strerror or exc}).", fix="Choose another place for it."
    )


@contextlib.contextmanager
def new_directory(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder that appears at ``path`` whole, or not at all.

    Yields a temporary folder beside ``path``; when the block ends well it is renamed to ``path``,
    when it raises it is removed. A process that is killed leaves only the hidden temporary folder,
    which the next call for the same ``path`` removes.

    Args:
        path: where the folder shall be.
        force: replace what is there.

    Raises:
        OutputError: ``path`` exists and ``force`` is off, or the disk refuses.
    """
    if path.exists() and not force:
        raise OutputError(f"{path} exists already.", fix="Pass --force to replace it, or --out.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        partial.mkdir()
    except OSError as exc:
        raise output_error(path, exc) from exc
    try:
        yield partial
        _sync(partial)
        _swap(partial, path, force=force)
    except OSError as exc:
        raise output_error(path, exc) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, path: Path, *, force: bool) -> None:
    if not path.exists():
        partial.rename(path)
        return
    if not force:
        raise OutputError(
            f"{path} appeared while this build ran.", fix="Pass --force to replace it, or --out."
        )
    old = path.with_name(f".{path.name}.{os.getpid()}.old.partial")
    path.rename(old)
    try:
        partial.rename(path)
    except OSError:
        old.rename(path)
        raise
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove what killed runs for ``path`` left; those of running processes stay."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)(\.old)?\.partial")
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(entry, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())

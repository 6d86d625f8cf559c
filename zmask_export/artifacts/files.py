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
_PARTIAL = re.compile(r"\.(?P<name>.+?)\.(?P<pid>\d+)(?P<old>\.old)?\.partial", re.DOTALL)


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
        file: whether the result is a file, which no folder can make room for; what killed writes of it
            left is cleared up, see :func:`recover`.

    Raises:
        OutputError: ``path`` is no name, is a folder where a file shall be, or lies in something
            that is no folder or may not be written to.
    """
    if not path.name:
        raise OutputError(
            f"{path} is a folder, not a name for a result.", fix="Give a name inside it."
        )
    if file and path.is_dir():
        raise _refused(path, errno.EISDIR)
    above = path.parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise _refused(path, errno.ENOTDIR)
    if not os.access(above, os.W_OK | os.X_OK):
        raise _refused(path, errno.EACCES)
    if file:
        recover(path)


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
        raise output_error(path, exc) from exc
    finally:
        # Of no write that failed, and of none that Ctrl-C ended.
        with contextlib.suppress(OSError):
            partial.unlink()


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """As :func:`write_bytes`, but never over a file that is there.

    Args:
        path: the file.
        data: its bytes.
        mode: of the file, from its first moment on.

    Raises:
        OutputError: something is there, or the folder is missing, read-only or full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)  # a rename would replace
    except OSError as exc:
        raise output_error(path, exc) from exc
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


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


def _refused(path: Path, code: int) -> OutputError:
    return output_error(path, OSError(code, os.strerror(code)))


@contextlib.contextmanager
def new_directory(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder that appears at ``path`` whole, or not at all.

    Yields a temporary folder beside ``path``; when the block ends well it is renamed to ``path``,
    when it raises it is removed. What a killed process left hidden is cleared up by the next call for
    the same ``path``, see :func:`recover`.

    Args:
        path: where the folder shall be.
        force: replace what is there.

    Raises:
        OutputError: ``path`` exists and ``force`` is off, or the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        if path.exists() and not force:
            raise OutputError(
                f"{path} exists already.", fix="Pass --force to replace it, or --out."
            )
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
    _remove(old)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, as far as the disk lets."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def recover(*paths: Path) -> None:
    """Clear up what killed runs for ``paths`` left; what belongs to running processes stays.

    A run that was killed between moving the old folder away and the new one in loses nothing: the
    old one comes back.

    Raises:
        OutputError: the disk refuses.
    """
    wanted = set(paths)
    for folder in {path.parent for path in wanted}:
        path = folder
        try:
            for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
                match = _PARTIAL.fullmatch(entry.name)
                path = folder / match["name"] if match else folder
                if match is None or path not in wanted or _alive(int(match["pid"])):
                    continue
                if match["old"] and not path.exists():
                    entry.rename(path)
                else:
                    _remove(entry)
        except OSError as exc:
            raise output_error(path, exc) from exc


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

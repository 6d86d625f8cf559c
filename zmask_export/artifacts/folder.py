"""A folder that is opened once, and whose files are read through it: no link is followed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20
# Not every system has each of them. A link is an error, and no pipe is waited for.
_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)
RELATIVE = os.open in os.supports_dir_fd and os.listdir in os.supports_fd
"""Whether this system opens files relative to an open folder."""


class Folder:
    """A folder, opened. A context manager; its end closes it.

    What takes the folder's place after it was opened is not seen.

    Args:
        path: of the folder; links on the way to it are followed.

    Raises:
        OSError: there is none, or it may not be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY) if RELATIVE else None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def names(self) -> set[str]:
        """Names of everything in it."""
        return set(os.listdir(self.path if self._descriptor is None else self._descriptor))

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """A plain file of the folder, open, and its size in bytes.

        Raises:
            OSError: it is missing, a link, no plain file, or may not be read.
        """
        with open(self._open(name), "rb") as file:
            yield file, os.fstat(file.fileno()).st_size

    def read(self, name: str, most: int) -> bytes:
        """A plain file's bytes; one more than ``most`` of a file that has more.

        Raises:
            OSError: it is missing, a link, no plain file, or may not be read.
        """
        with self.file(name) as (file, _):
            return file.read(most + 1)

    def check(self, name: str, size: int, sha256: str, *, keep: bool) -> bytes | None:
        """Read a plain file once, and hold it against its size and hash.

        Returns:
            The very bytes that were hashed where they are to be kept, else None.

        Raises:
            OSError: it is missing, a link, no plain file, or may not be read.
            ValueError: it has another size or hash.
        """
        with self.file(name) as (file, there):
            # The size is the file's own, so no manifest can claim memory that no file fills.
            if there != size:
                raise ValueError(name)
            content = file.read(size) if keep else None
            digest, held = hashlib.sha256(content or b""), len(content or b"")
            while held <= size and (chunk := file.read(_CHUNK)):
                digest.update(chunk)
                held += len(chunk)
        if held != size or digest.hexdigest() != sha256:
            raise ValueError(name)
        return content

    def _open(self, name: str) -> int:
        if self._descriptor is None:
            path = self.path / name
            if path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
            descriptor = os.open(path, _FLAGS)
        else:
            descriptor = os.open(name, _FLAGS, dir_fd=self._descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no plain file", name)
        return descriptor

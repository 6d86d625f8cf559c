"""What users read of results that cannot be written: every sentence, word for word."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts.test_words import Refusal, assert_says
from zmask_export.artifacts.files import (
    new_directory,
    output_error,
    recover,
    require_writable,
    write_bytes,
    write_new,
)
from zmask_export.errors import OutputError

ELSEWHERE = "Choose another place for it."
CLOSED = "Choose a folder that you may write to."
REPLACE = "Pass --force to replace it, or --out."


def _make(path: Path, meanwhile: Callable[[Path], object] = lambda _: None, **how: Any) -> None:
    with new_directory(path, **how) as partial:
        meanwhile(partial)


def _dangling(folder: Path) -> None:
    """What a killed run moved away cannot come back: a link leads from its place to nowhere."""
    (folder / "bundle").symlink_to(folder / "nowhere")
    (folder / f".bundle.{10**12}.old.partial").mkdir()
    recover(folder / "bundle")


def _failed(code: int) -> Callable[[Path], object]:
    def fail(folder: Path) -> None:
        raise output_error(folder / "x", OSError(code, os.strerror(code)))

    return fail


def _failed_without_a_reason(folder: Path) -> None:
    raise output_error(folder / "x", OSError("odd"))


FILES: dict[str, Refusal] = {
    "the root": (
        lambda _: require_writable(Path("/")),
        "/ is a folder, not a name for a result.",
        "Give a name inside it.",
    ),
    "a folder": (
        lambda f: require_writable(f / "there"),
        "@/there cannot be written (Is a directory).",
        ELSEWHERE,
    ),
    "below a file": (
        lambda f: require_writable(f / "file" / "below" / "x"),
        "@/file/below/x cannot be written (Not a directory).",
        ELSEWHERE,
    ),
    "a closed folder": (
        lambda _: require_writable(Path("/proc/self/x")),
        "/proc/self/x cannot be written: the folder is read-only (Permission denied).",
        CLOSED,
    ),
    "bytes over a folder": (
        lambda f: write_bytes(f / "there", b""),
        "@/there cannot be written (Is a directory).",
        ELSEWHERE,
    ),
    "bytes where nothing can be": (
        lambda _: write_bytes(Path("/proc/zmask/file"), b""),
        "/proc/zmask/file cannot be written (No such file or directory).",
        ELSEWHERE,
    ),
    "new bytes over a file": (
        lambda f: write_new(f / "file", b"", mode=0o644),
        "@/file cannot be written (File exists).",
        ELSEWHERE,
    ),
    "new bytes where nothing can be": (
        lambda _: write_new(Path("/proc/zmask/file"), b"", mode=0o644),
        "/proc/zmask/file cannot be written (No such file or directory).",
        ELSEWHERE,
    ),
    "a bundle over another": (
        lambda f: _make(f / "there"),
        "@/there exists already.",
        REPLACE,
    ),
    "a bundle that appears": (
        lambda f: _make(f / "new", lambda _: (f / "new").mkdir()),
        "@/new appeared while this build ran.",
        REPLACE,
    ),
    "a bundle that disappears": (
        lambda f: _make(f / "new", Path.rmdir),
        "@/new cannot be written (No such file or directory).",
        ELSEWHERE,
    ),
    "a bundle that cannot come back": (
        _dangling,
        "@/bundle cannot be written (Not a directory).",
        ELSEWHERE,
    ),
    "a full disk": (
        _failed(errno.ENOSPC),
        "@/x cannot be written: the disk is full.",
        "Free space, or choose another disk.",
    ),
    "somebody else's": (
        _failed(errno.EPERM),
        "@/x cannot be written: the folder is read-only (Operation not permitted).",
        CLOSED,
    ),
    "a read-only disk": (
        _failed(errno.EROFS),
        "@/x cannot be written: the folder is read-only (Read-only file system).",
        CLOSED,
    ),
    "an unknown reason": (_failed_without_a_reason, "@/x cannot be written (odd).", ELSEWHERE),
}


@pytest.mark.parametrize("case", FILES)
def test_a_refused_write(case: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    assert_says(FILES[case], tmp_path, OutputError)

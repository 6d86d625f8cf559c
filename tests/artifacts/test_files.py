from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zmask_export.artifacts.files import (
    new_directory,
    output_error,
    require_writable,
    sha256_file,
    write_bytes,
    write_text,
)
from zmask_export.errors import OutputError

UNWRITABLE = [Path("/proc/zmask/file"), Path("/dev/null/file")]


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_bytes(path, b"first")
    write_text(path, "zweitens: ü")
    assert path.read_bytes() == "zweitens: ü".encode()
    assert _names(path.parent) == ["file"]


@pytest.mark.parametrize("path", UNWRITABLE, ids=str)
def test_what_cannot_be_written_is_an_output_error(path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes(path, b"x")
    with pytest.raises(OutputError, match="cannot be written"), new_directory(path):
        pytest.fail("the block must not be entered")


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(OutputError):
        write_bytes(tmp_path / "file" / "below", b"x")
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_a_folder_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError):
        write_bytes(tmp_path / "taken", b"x")
    assert _names(tmp_path) == ["taken"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    # The kernel itself says "no space left" on every write to this device.
    (tmp_path / f".file.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="disk is full") as caught:
        write_bytes(path, b"new")
    assert "Free space" in caught.value.fix
    assert _names(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("file", [True, False])
def test_a_place_that_cannot_take_a_result_is_refused_at_once(tmp_path: Path, file: bool) -> None:
    (tmp_path / "taken").write_bytes(b"")
    for path in (Path(), Path("/"), tmp_path / "taken" / "below" / "x"):
        with pytest.raises(OutputError) as caught:
            require_writable(path, file=file)
        assert caught.value.fix
    for path in (tmp_path / "taken", tmp_path / "new" / "folder" / "x"):
        require_writable(path, file=file)
    assert _names(tmp_path) == ["taken"]


def test_a_folder_takes_a_folder_but_no_file(tmp_path: Path) -> None:
    require_writable(tmp_path, file=False)
    with pytest.raises(OutputError, match="cannot be written"):
        require_writable(tmp_path)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from zmask_export.artifacts.files import write_bytes
from zmask_export.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(Path(sys.argv[1]), bytes(100_000))
except OutputError:
    sys.exit(5)
"""


def test_a_write_that_stops_halfway_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "file"], check=False)
    assert done.returncode == 5
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "full"), (errno.EACCES, "read-only"), (errno.EROFS, "read-only")],
)
def test_an_output_error_says_why(code: int, words: str) -> None:
    assert words in output_error(Path("x"), OSError(code, os.strerror(code))).what


def test_a_directory_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bundle"
    with new_directory(path) as partial:
        (partial / "file").write_bytes(b"x")
        assert not path.exists()
        assert partial.parent == path.parent
    assert _names(path) == ["file"]
    assert _names(path.parent) == ["bundle"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_inside_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with new_directory(tmp_path / "bundle") as partial:
            (partial / "file").write_bytes(b"x")
            raise error

    with pytest.raises(error):
        fail()
    assert _names(tmp_path) == []


def test_an_existing_directory_is_kept_without_force(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="exists already"), new_directory(tmp_path / "bundle"):
        pytest.fail("the block must not be entered")
    assert _names(tmp_path) == ["bundle"]


def test_force_replaces_the_whole_directory(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").write_bytes(b"x")
    with new_directory(path, force=True) as partial:
        (partial / "new").write_bytes(b"x")
        assert _names(path) == ["old"]
    assert _names(path) == ["new"]
    assert _names(tmp_path) == ["bundle"]


def test_force_replaces_a_link_but_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bundle").symlink_to(tmp_path / "elsewhere")
    with new_directory(tmp_path / "bundle", force=True) as partial:
        (partial / "new").write_bytes(b"x")
    assert _names(tmp_path) == ["bundle", "elsewhere"]
    assert not (tmp_path / "bundle").is_symlink()


def test_a_failed_block_leaves_what_force_would_have_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").write_bytes(b"x")
    with pytest.raises(RuntimeError), new_directory(path, force=True):
        raise RuntimeError
    assert _names(path) == ["old"]
    assert _names(tmp_path) == ["bundle"]


def test_a_directory_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "bundle"

    def meet() -> None:
        with new_directory(path):
            path.mkdir()
            (path / "theirs").write_bytes(b"x")

    with pytest.raises(OutputError, match="appeared"):
        meet()
    assert _names(path) == ["theirs"]
    assert _names(tmp_path) == ["bundle"]

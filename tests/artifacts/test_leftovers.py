"""What is left behind, what is not, and who may read it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import contents
from zmask_export.artifacts import files
from zmask_export.artifacts.files import new_directory, recover, require_writable, write_new
from zmask_export.errors import OutputError

NOBODY = 10**12
"""No process has this number."""


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def running() -> Iterator[int]:
    """The number of a process that runs; to be asked after must not disturb it."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        # Under nohup it would not notice a SIGHUP.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    ) as process:
        yield process.pid
        process.terminate()
    assert process.returncode == -signal.SIGTERM


@pytest.fixture
def no_mask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_mask")
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_new_file_has_its_mode_and_nothing_beside_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "two" / "folders" / "file"
    write_new(path, b"x" * 5, mode=mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"x" * 5
    write_new(path.with_name("second"), b"", mode=mode)
    assert contents(path.parent) == ["file", "second"]


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(OutputError):
            write_new(tmp_path / name, b"new", mode=0o600)
    assert contents(tmp_path) == ["file", "link"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_new_file_is_not_written_through_a_link_of_a_run_before(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / f".file.{os.getpid()}.partial").symlink_to(tmp_path / "precious")
    write_new(tmp_path / "file", b"new", mode=0o600)
    assert contents(tmp_path) == ["file", "precious"]
    assert (tmp_path / "precious").read_bytes() == b"old"


def test_leftovers_go_whatever_they_are(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (tmp_path / ".a").touch()  # comes before what is looked for
    (tmp_path / f".bundle.{NOBODY}.partial").write_bytes(b"half")
    (tmp_path / f".bundle.{NOBODY + 1}.partial").symlink_to(tmp_path / "elsewhere")
    (tmp_path / f".bundle.{NOBODY + 2}.partial").mkdir()
    (tmp_path / f".bundle.{NOBODY + 2}.partial" / "file").touch()
    recover(tmp_path / "bundle")
    assert contents(tmp_path) == [".a", "elsewhere", "elsewhere/file"]


@pytest.mark.parametrize("kind", [Path.mkdir, Path.touch])
def test_what_another_run_clears_up_meanwhile_is_no_failure(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = tmp_path / f".bundle.{NOBODY}.partial"
    kind(leftover)

    def dead_and_cleared(_: int) -> bool:
        leftover.rename(tmp_path / "gone")
        return False

    monkeypatch.setattr(files, "_alive", dead_and_cleared)
    recover(tmp_path / "bundle")
    assert contents(tmp_path) == ["gone"]


def test_a_process_of_somebody_else_is_a_running_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    if os.geteuid() == 0:  # root may signal all of them
        monkeypatch.setattr(os, "kill", refuse)
    (tmp_path / ".bundle.1.partial").touch()
    recover(tmp_path / "bundle")
    assert contents(tmp_path) == [".bundle.1.partial"]


@pytest.mark.parametrize("kind", [Path.mkdir, Path.touch])
def test_what_cannot_be_cleared_up_keeps_nothing_from_being_written(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    leftover = f".bundle.{NOBODY}.partial"
    kind(tmp_path / leftover)
    kind(tmp_path / "bundle")
    monkeypatch.setattr(os, "rmdir", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with new_directory(tmp_path / "bundle", force=True) as partial:
        (partial / "new").touch()
    moved = f".bundle.{os.getpid()}.old.partial"
    assert contents(tmp_path) == sorted([leftover, moved, "bundle", "bundle/new"])


def test_an_old_bundle_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").touch()

    def lose() -> None:
        with new_directory(tmp_path / "bundle", force=True) as partial:
            partial.rmdir()

    with pytest.raises(OutputError, match="No such file"):
        lose()
    assert contents(tmp_path) == ["bundle", "bundle/old"]


@pytest.mark.parametrize("name", ["file", "link"])
def test_force_replaces_what_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with new_directory(tmp_path / name, force=True) as partial:
        (partial / "new").touch()
    other = ({"file", "link"} - {name}).pop()
    assert contents(tmp_path) == sorted([name, f"{name}/new", other])


def test_every_file_is_on_the_disk_before_its_folder_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, flush = set(), os.fsync

    def record(descriptor: int) -> None:
        assert not (tmp_path / "bundle").exists()
        flushed.add(os.fstat(descriptor).st_ino)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    with new_directory(tmp_path / "bundle") as partial:
        (partial / "deep").mkdir()
        for name in ("a", "deep/b"):
            (partial / name).touch()
    assert flushed == {(tmp_path / "bundle" / name).stat().st_ino for name in ("a", "deep/b")}


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(
    tmp_path: Path, running: int
) -> None:
    dead = _dead_pid()
    for name in (
        f".bundle.{dead}.partial",
        f".bundle.{10**12}.partial",
        f".bundle.{running}.partial",
        f".other.{dead}.partial",
        ".bundle.words.partial",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    with new_directory(tmp_path / "bundle"):
        pass
    kept = (f".bundle.{running}.partial", f".other.{dead}.partial", ".bundle.words.partial")
    assert contents(tmp_path) == sorted([*kept, *(f"{name}/file" for name in kept), "bundle"])


def test_what_was_moved_away_comes_back_when_its_run_was_killed(tmp_path: Path) -> None:
    """Killed between the two renames of a replacement: neither old nor new is visible."""
    dead = _dead_pid()
    for name in (f".bundle.{dead}.old.partial", f".bundle.{dead}.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / f".bundle.{dead}.old.partial" / "old").write_bytes(b"x")
    recover(tmp_path / "bundle")
    assert contents(tmp_path) == ["bundle", "bundle/old"]
    with pytest.raises(OutputError, match="exists already"), new_directory(tmp_path / "bundle"):
        pytest.fail("the block must not be entered")


def test_what_was_moved_away_goes_where_the_new_one_is_in_place(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / f".bundle.{_dead_pid()}.old.partial").mkdir()
    recover(tmp_path / "bundle")
    assert contents(tmp_path) == ["bundle"]


def test_what_killed_writes_of_a_file_left_goes_before_the_next_result(
    tmp_path: Path, running: int
) -> None:
    dead = _dead_pid()
    kept = f".result.{running}.partial"
    names = [f".result.{dead}.partial", f".other.{dead}.partial", kept, "result"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    require_writable(tmp_path / "result")
    assert contents(tmp_path) == sorted(names[1:])
    recover(tmp_path / "other", tmp_path / "third")
    assert contents(tmp_path) == sorted(names[2:])


def test_a_running_replacement_is_left_alone(tmp_path: Path, running: int) -> None:
    name = f".bundle.{running}.old.partial"
    (tmp_path / name).mkdir()
    recover(tmp_path / "bundle")
    assert contents(tmp_path) == [name]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may list every folder
    with pytest.raises(OutputError) as caught:
        recover(tmp_path / "bundle")
    assert str(tmp_path) in caught.value.what


def test_there_is_nothing_to_recover_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    recover(tmp_path / "none" / "bundle")
    assert contents(tmp_path) == []


KILLED = """
import sys, time
from pathlib import Path
from zmask_export.artifacts.files import new_directory
with new_directory(Path(sys.argv[1])) as partial:
    (partial / "half").write_bytes(b"x")
    print("inside", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_no_visible_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, tmp_path / "bundle"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    hidden = f".bundle.{process.pid}.partial"
    assert contents(tmp_path) == [hidden, f"{hidden}/half"]
    with new_directory(tmp_path / "bundle") as partial:
        (partial / "whole").write_bytes(b"x")
    assert contents(tmp_path) == ["bundle", "bundle/whole"]

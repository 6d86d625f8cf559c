"""Temporary folders: gone after use, a killed run's with the next use, none while somebody works in it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from zmask_export.artifacts.scratch import scratch


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_gone_after_its_block(temporary: Path) -> None:
    def work() -> None:
        with scratch("work") as folder:
            (folder / "file").write_bytes(b"x")
            assert folder.parent == temporary
            assert folder.name.startswith("zmask-work-")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert list(temporary.iterdir()) == []


def test_what_nobody_works_in_goes_and_the_rest_stays(temporary: Path) -> None:
    for name in ("zmask-work-killed", "zmask-other-killed", "zmask-elsewhere"):
        (temporary / name).mkdir()
        (temporary / name / "file").write_bytes(b"x")
    (temporary / "zmask-work-link").symlink_to(temporary / "zmask-elsewhere")
    (temporary / "zmask-work-file").write_bytes(b"x")
    with scratch("work") as first, scratch("work") as second:
        assert first != second
        assert first.is_dir()
        assert not (temporary / "zmask-work-killed").exists()
    kept = ["zmask-elsewhere", "zmask-other-killed", "zmask-work-file", "zmask-work-link"]
    assert sorted(path.name for path in temporary.iterdir()) == kept
    assert (temporary / "zmask-elsewhere" / "file").exists()


def test_a_folder_that_went_before_its_lock_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may take a new folder for a killed run's, until it is locked."""
    lock, gone = fcntl.flock, []

    def late(descriptor: int, how: int) -> Any:
        if not gone:
            gone.extend(temporary.iterdir())
            gone[0].rmdir()
        return lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with scratch("work") as folder:
        assert folder.is_dir()
        assert folder not in gone


def test_a_folder_that_went_before_it_was_opened_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, gone = tempfile.mkdtemp, []

    def and_take_the_first(**given: Any) -> str:
        name = make(**given)
        if not gone:
            gone.append(name)
            Path(name).rmdir()
        return name

    monkeypatch.setattr(tempfile, "mkdtemp", and_take_the_first)
    with scratch("work") as folder:
        assert folder.is_dir()
    assert len(gone) == 1


def test_a_file_that_cannot_be_removed_keeps_no_other(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, stuck = os.unlink, []

    def but_not_the_first(path: Any, **given: Any) -> None:
        if not stuck:
            stuck.append(os.path.basename(path))
            raise PermissionError
        unlink(path, **given)

    left = temporary / "zmask-work-killed"
    left.mkdir()
    for name in ("a", "b", "c"):
        (left / name).touch()
    monkeypatch.setattr(os, "unlink", but_not_the_first)
    with scratch("work"):
        assert [path.name for path in left.iterdir()] == stuck


def test_a_folder_needs_no_locks(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(os.strerror(37))

    monkeypatch.setattr(fcntl, "flock", none)
    with scratch("work") as first, scratch("work"):
        assert first.is_dir()
    assert list(temporary.iterdir()) == []

"""Files that go, or change, while a data set is read: named, and nothing that was done is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Inputs, assert_refused, contents, zmask
from zmask_export.data import images

YEARS = 50 * 365 * 86_400


def _remove(path: Path) -> None:
    path.rename(path.with_name(".aside"))


def _become_a_folder(path: Path) -> None:
    _remove(path)
    path.mkdir()


def _cut_short(path: Path) -> None:
    shutil.copy2(path, path.with_name(".aside"))
    path.write_bytes(path.read_bytes()[:500])


def _restore(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    path.with_name(".aside").rename(path)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "removed": (_remove, "cannot be read (No such file"),
    "a folder": (_become_a_folder, "cannot be read (Is a directory"),
    "cut short": (_cut_short, "is damaged or cut short"),
}


@pytest.fixture
def strike(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """Lets a fault happen to a file as soon as the first image was read."""

    def prepare(path: Path, fault: str) -> None:
        read, struck = images._bytes, []

        def reading(other: Path) -> bytes:
            data = read(other)
            if not struck and other.parent.name == "images":
                struck.append(other)
                assert other != path
                FAULTS[fault][0](path)
            return data

        monkeypatch.setattr(images, "_bytes", reading)

    return prepare


Strike = Callable[[Path, str], None]


@pytest.mark.parametrize("fault", FAULTS)
def test_calibrate_goes_on_when_the_file_is_back(
    fault: str, strike: Strike, inputs: Inputs, out: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(inputs.images, tmp_path / "images")
    arguments = ("calibrate", *inputs.random, "--images", folder, "--batch", 1, "--out")
    whole = out.with_name("whole")
    assert zmask(*arguments, whole).code == 0
    victim = folder / "2.png"
    strike(victim, fault)
    assert_refused(zmask(*arguments, out), 4, str(victim), FAULTS[fault][1])
    assert contents(out.parent) == [".result.progress", "whole"]
    _restore(victim)
    assert zmask(*arguments, out).code == 0
    assert contents(out.parent) == ["result", "whole"]
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("moved", [-YEARS, YEARS], ids=["the past", "the future"])
def test_files_of_another_time_change_no_result(
    moved: int, strike: Strike, inputs: Inputs, out: Path, tmp_path: Path
) -> None:
    """They may have changed: what was measured is measured again."""
    folder = shutil.copytree(inputs.images, tmp_path / "images")
    arguments = ("calibrate", *inputs.random, "--images", folder, "--batch", 1, "--out")
    whole = out.with_name("whole")
    assert zmask(*arguments, whole).code == 0
    strike(folder / "2.png", "removed")
    assert zmask(*arguments, out).code == 4
    _restore(folder / "2.png")
    for path in (*folder.iterdir(), out.parent / ".result.progress"):
        at = path.stat().st_mtime + moved
        os.utime(path, (at, at))
    assert zmask(*arguments, out).code == 0
    assert contents(out.parent) == ["result", "whole"]
    assert out.read_bytes() == whole.read_bytes()


def test_a_file_that_goes_is_left_out_where_bad_files_are(
    strike: Strike, inputs: Inputs, out: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(inputs.images, tmp_path / "images")
    strike(folder / "2.png", "removed")
    arguments = ("--images", folder, "--on-bad-image", "skip", "--json", "--out", out)
    outcome = zmask("calibrate", *inputs.random, *arguments)
    assert outcome.record["images"] == 2
    assert "left out: " in outcome.err


@pytest.mark.parametrize("verb", ["craft", "evaluate", "fit"])
def test_a_verb_names_the_file_that_went(
    verb: str, strike: Strike, inputs: Inputs, bundle: Path, out: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(inputs.camvid, tmp_path / "camvid")
    patch = ("--patch", inputs.patch)
    frames = data / "train" / "images"
    arguments: dict[str, tuple[object, ...]] = {
        "craft": (*inputs.random, "--data", data, "--epochs", 1, "--out", out),
        "evaluate": (bundle, "--data", data, *patch, "--html", out),
        "fit": (
            *inputs.random, "--calibration", bundle / "calibration.safetensors", *patch,
            "--images", frames, "--epochs", 1, "--out", out,
        ),
    }  # fmt: skip
    victim = data / "val" / "images" / "1.png" if verb == "evaluate" else frames / "2.png"
    strike(victim, "removed")
    assert_refused(zmask(verb, *arguments[verb]), 4, str(victim), FAULTS["removed"][1])
    assert contents(out.parent) == []


def test_a_label_map_that_went(strike: Strike, inputs: Inputs, out: Path, tmp_path: Path) -> None:
    data = shutil.copytree(inputs.camvid, tmp_path / "camvid")
    victim = data / "train" / "labels" / "2.png"
    strike(victim, "removed")
    outcome = zmask("craft", *inputs.random, "--data", data, "--epochs", 1, "--out", out)
    assert_refused(outcome, 4, str(victim), "cannot be read")
    assert contents(out.parent) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_run_keeps_what_it_has_printed(
    fault: str, strike: Strike, inputs: Inputs, bundle: Path, out: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(inputs.images, tmp_path / "images")
    strike(folder / "2.png", fault)
    outcome = zmask("run", bundle, folder, "--out", out)
    assert outcome.code == 4
    assert f"Error: {folder / '2.png'}" in outcome.err
    assert (out / "results.jsonl").read_text() == outcome.out
    assert outcome.out.count("\n") == 2
    assert len(list(out.iterdir())) == 1 + 2 * 3


@pytest.mark.parametrize("verb", ["calibrate", "run", "run a file"])
def test_a_name_that_is_no_utf8(
    verb: str, inputs: Inputs, bundle: Path, out: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    strange = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png"))
    try:
        shutil.copy(inputs.image, strange)
    except OSError:
        pytest.skip("this file system takes no such name")
    given: dict[str, tuple[object, ...]] = {
        "calibrate": ("calibrate", *inputs.random, "--images", folder),
        "run": ("run", bundle, folder),
        "run a file": ("run", bundle, strange),
    }
    outcome = zmask(*given[verb], "--out", out)
    assert_refused(outcome, 4, r"\udcff.png' is no UTF-8", "Rename the file.")
    assert contents(out.parent) == []

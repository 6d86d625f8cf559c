"""Results that cannot be written: exit code 5, nothing half-written, and what was there stays."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import (
    ONE_THREAD,
    Inputs,
    Outcome,
    assert_refused,
    contents,
    link_tree,
    zmask,
)
from zmask_export.runtime.protected import load

NOBODY = 65534


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    with _mounted(tmp_path / "read-only", "ro,size=1m") as folder:
        yield folder


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk with a megabyte, most of it taken."""
    with _mounted(tmp_path / "full", "size=1m") as folder:
        (folder / "ballast").write_bytes(b"\1" * (1020 << 10))
        yield folder


def _writing(inputs: Inputs, bundle: Path, calibration: Path) -> dict[str, tuple[object, ...]]:
    """A command a verb that writes, but for --out."""
    images, patch = ("--images", inputs.images), ("--patch", inputs.patch)
    return {
        "build": ("build", *inputs.random, "--calibration", calibration, "--target", "onnx"),
        "calibrate": ("calibrate", *inputs.random, *images),
        "fit": (
            "fit", *inputs.random, "--calibration", calibration, *images, *patch, "--epochs", "1"
        ),
        "craft": (
            "craft", *inputs.random, "--data", inputs.camvid, "--images", "1", "--epochs", "1"
        ),
        "run": ("run", bundle, inputs.image),
    }  # fmt: skip


VERBS = ("build", "calibrate", "fit", "craft", "run")


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_folder(
    verb: str, inputs: Inputs, bundle: Path, calibration: Path, read_only: Path
) -> None:
    arguments = _writing(inputs, bundle, calibration)[verb]
    outcome = zmask(*arguments, "--out", read_only / "result")
    assert_refused(outcome, 5, "read-only", "Choose a folder that you may write to.")
    assert contents(read_only) == []


@pytest.mark.parametrize("verb", ["calibrate", "fit", "craft"])
def test_a_full_disk(
    verb: str, inputs: Inputs, bundle: Path, calibration: Path, full: Path
) -> None:
    arguments = _writing(inputs, bundle, calibration)[verb]
    outcome = zmask(*arguments, "--out", full / "result")
    assert_refused(outcome, 5, "the disk is full", "Free space")
    assert contents(full) == ["ballast"]


def test_a_disk_that_fills_up_while_pictures_are_written(
    inputs: Inputs, bundle: Path, full: Path
) -> None:
    outcome = zmask("run", bundle, inputs.image, "--out", full / "result")
    assert_refused(outcome, 5, "the disk is full")
    for path in (full / "result").iterdir():
        with Image.open(path) as picture:
            picture.load()


def test_a_full_disk_while_a_bundle_is_replaced_keeps_the_old_one(
    inputs: Inputs, detect_bundle: Path, tmp_path: Path
) -> None:
    """The new bundle does not fit beside the old one: the old one stays as it was."""
    size = sum(path.stat().st_size for path in detect_bundle.iterdir())
    with _mounted(tmp_path / "tight", f"size={size + (1 << 20)}") as folder:
        (folder / "bundle").mkdir()
        for path in detect_bundle.iterdir():
            (folder / "bundle" / path.name).write_bytes(path.read_bytes())
        before = contents(folder)
        outcome = zmask(
            "build", *inputs.random, "--calibration", folder / "bundle" / "calibration.safetensors",
            "--target", "onnx", "--force", "--out", folder / "bundle",
        )  # fmt: skip
        assert_refused(outcome, 5, "the disk is full", "Free space")
        assert contents(folder) == before
        load(folder / "bundle")


def test_a_folder_of_somebody_else(inputs: Inputs, calibration: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    # That user may not be able to read this checkout: everything is imported before.
    code = (
        "import os, sys\n"
        "from zmask_export.cli.main import run\n"
        "from zmask_export.cli import build, console\n"
        "from zmask_export.pipeline import build\n"
        f"os.chdir({str(closed)!r})\n"
        f"os.setuid({NOBODY})\n"
        "sys.exit(run(['build', '--model', 'icnet', '--random-weights', '--out', 'result']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ONE_THREAD
    )
    assert_refused(Outcome(done.returncode, done.stdout, done.stderr), 5, "read-only")
    assert contents(closed) == []


def test_a_bundle_that_exists_stays(inputs: Inputs, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").write_text("mine")
    outcome = zmask("build", *inputs.random, "--out", there)
    assert_refused(outcome, 5, "exists already", "--force")
    assert (there / "file").read_text() == "mine"
    assert contents(tmp_path) == ["there", "there/file"]


def test_force_replaces_no_folder_that_is_no_bundle(inputs: Inputs, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").write_text("mine")
    outcome = zmask("build", *inputs.random, "--out", there, "--force")
    assert_refused(outcome, 5, "is no bundle", "--out")
    assert contents(tmp_path) == ["there", "there/file"]


def test_an_existing_bundle_survives_a_build_that_fails(
    inputs: Inputs, bundle: Path, calibration: Path, tmp_path: Path
) -> None:
    there = link_tree(bundle, tmp_path / "there")
    before = contents(tmp_path)
    outcome = zmask("build", *inputs.own, "--calibration", calibration, "--out", there, "--force")
    assert_refused(outcome, 4, "another weights")
    assert contents(tmp_path) == before
    load(there)


@pytest.mark.parametrize("verb", ["calibrate", "fit", "craft"])
def test_a_file_where_a_folder_is(
    verb: str, inputs: Inputs, bundle: Path, calibration: Path, out: Path
) -> None:
    out.mkdir()
    arguments = _writing(inputs, bundle, calibration)[verb]
    assert_refused(zmask(*arguments, "--out", out), 5, "Is a directory")
    assert contents(out.parent) == ["result"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_where_a_file_is(
    verb: str, inputs: Inputs, bundle: Path, calibration: Path, out: Path
) -> None:
    out.write_text("mine")
    arguments = _writing(inputs, bundle, calibration)[verb]
    assert_refused(zmask(*arguments, "--out", out / "result"), 5, "Not a directory")
    assert contents(out.parent) == ["result"]
    assert out.read_text() == "mine"


@pytest.mark.parametrize("verb", ["build", "calibrate", "fit", "craft"])
def test_a_result_without_a_name(
    verb: str, inputs: Inputs, bundle: Path, calibration: Path, out: Path
) -> None:
    force = ("--force",) if verb == "build" else ()
    arguments = _writing(inputs, bundle, calibration)[verb]
    assert_refused(zmask(*arguments, "--out", ".", *force), 5, "not a name for a result")
    assert contents(out.parent) == []

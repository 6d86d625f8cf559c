"""What users read of bundles, calibrations and YAML files: every sentence, word for word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as save_tensors

from tests.artifacts.test_calibration import DATA, FILE, HEADER, _tensors, _with
from tests.artifacts.test_manifest import _edit, _manifest
from zmask_export.artifacts import calibration
from zmask_export.artifacts.bundle import open_bundle, read_manifest
from zmask_export.artifacts.manifest import FILE_NAME
from zmask_export.artifacts.yaml_file import load_yaml
from zmask_export.errors import (
    BundleError,
    CalibrationError,
    InputError,
    UsageError,
    ZMaskError,
)
from zmask_export.spec import Preprocess

Refusal = tuple[Callable[[Path], object], str, str]
"""What to do in a folder, and the two sentences that follow; ``@`` stands for that folder."""


def assert_says(refusal: Refusal, folder: Path, kind: type[ZMaskError]) -> None:
    """The act is refused with this very class and these very sentences."""
    act, what, fix = refusal
    with pytest.raises(ZMaskError) as caught:
        act(folder)
    said = (type(caught.value), caught.value.what, caught.value.fix)
    assert said == (kind, what.replace("@", str(folder)), fix)


AGAIN = "Build it again, or copy it again."
NO_BUNDLE = (
    "@ is no bundle: it has no readable manifest.json.",
    "Give the folder that zmask-export build wrote.",
)


def _write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def _other_checksum(folder: Path) -> None:
    data = _manifest(folder).sealed().to_bytes()
    (folder / FILE_NAME).write_bytes(data.replace(b'"demo"', b'"dump"'))


def _folder_for_graph(folder: Path) -> None:
    (folder / "graph").unlink()
    (folder / "graph").mkdir()


BUNDLES: dict[str, Refusal] = {
    "no manifest": (lambda f: (f / FILE_NAME).unlink(), *NO_BUNDLE),
    "no text": (_write(FILE_NAME, b"\xff\xfe"), *NO_BUNDLE),
    "a long manifest": (
        _write(FILE_NAME, b" " * ((4 << 20) + 1)),
        "The bundle @ has a manifest of enormous size.",
        AGAIN,
    ),
    "a wrong field": (
        lambda f: _edit(f, threshold=-1),
        "The bundle @ has a damaged manifest (threshold: Input should be greater than or equal to 0).",
        AGAIN,
    ),
    "a later form": (
        lambda f: _edit(f, schema_version=2),
        "The bundle @ has schema version 2, not 1.",
        AGAIN,
    ),
    "another checksum": (
        _other_checksum,
        "The bundle @ has a damaged manifest (its checksum is another).",
        AGAIN,
    ),
    "no graph": (lambda f: (f / "graph").unlink(), "The bundle @ lacks the file graph.", AGAIN),
    "one file more": (_write("more", b""), "The bundle @ has an extra file more.", AGAIN),
    "a strange name": (_write("a\nb", b""), "The bundle @ has an extra file 'a\\nb'.", AGAIN),
    "a folder": (
        _folder_for_graph,
        "The bundle @ has something else than a file called graph.",
        AGAIN,
    ),
    "other bytes": (_write("graph", b"gravy"), "The bundle @ has a changed file graph.", AGAIN),
}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    (tmp_path / "graph").write_bytes(b"graph")
    (tmp_path / FILE_NAME).write_bytes(_manifest(tmp_path).to_bytes())
    return tmp_path


@pytest.mark.parametrize("case", BUNDLES)
def test_a_refused_bundle(case: str, whole: Path) -> None:
    spoil, what, fix = BUNDLES[case]
    assert_says((lambda f: (spoil(f), read_manifest(f)), what, fix), whole, BundleError)


def test_a_file_that_was_not_kept(whole: Path) -> None:
    opened = open_bundle(whole)
    refusal = (lambda _: opened.read("graph"), "The bundle @ has no graph.", "Build it again.")
    assert_says(refusal, whole, BundleError)


REWRITE = "Write it again with zmask-export calibrate and fit."
UNREADABLE = "Run zmask-export calibrate, or give the right path with --calibration."


def _tensor(name: str, *values: float, dtype: type = np.float32) -> bytes:
    return _with(_tensors() | {name: np.array(values, dtype)})


CALIBRATIONS: dict[str, tuple[bytes, str]] = {
    "cut short": (DATA[:-1], "is cut short or no safetensors file"),
    "foreign": (
        save_tensors(_tensors()),
        "is a safetensors file, but not one of zmask-export",
    ),
    "a wrong field": (
        _with(_tensors(), images=0),
        "has a wrong header: images: Input should be greater than or equal to 1",
    ),
    "a later form": (_with(_tensors(), format_version=2), "has format version 2, not 1"),
    "no mean": (
        _with({name: value for name, value in _tensors().items() if name != "mean/late"}),
        "lacks the tensor mean/late",
    ),
    "other numbers": (
        _tensor("std/late", 1, dtype=np.float64),
        "has a tensor std/late that is no float32 vector",
    ),
    "no number": (_tensor("mean/late", np.nan), "has a value in mean/late that is not finite"),
    "two lengths": (
        _tensor("std/late", 1, 2),
        "has a mean and a std of different length for late",
    ),
    "below zero": (_tensor("std/late", -1), "has a negative standard deviation for late"),
    "nine parameters": (_tensor("fusion", *range(9)), "has 9 fusion parameters instead of 8"),
    "endless parameters": (
        _tensor("fusion", *[np.inf] * 8),
        "has a value in fusion that is not finite",
    ),
}


@pytest.mark.parametrize("case", CALIBRATIONS)
def test_a_refused_calibration(case: str, tmp_path: Path) -> None:
    data, what = CALIBRATIONS[case]
    (tmp_path / "c").write_bytes(data)
    refusal = (lambda f: calibration.load(f / "c"), f"The calibration @/c {what}.", REWRITE)
    assert_says(refusal, tmp_path, CalibrationError)


def test_an_enormous_calibration(tmp_path: Path) -> None:
    with (tmp_path / "c").open("wb") as file:
        file.truncate((256 << 20) + 1)
    refusal = (
        lambda f: calibration.load(f / "c"),
        "The calibration @/c is larger than 256 MiB.",
        REWRITE,
    )
    assert_says(refusal, tmp_path, CalibrationError)


def test_a_calibration_that_cannot_be_used_at_all(tmp_path: Path) -> None:
    missing = "The calibration @/c cannot be read (No such file or directory)."
    assert_says(
        (lambda f: calibration.load(f / "c"), missing, UNREADABLE), tmp_path, CalibrationError
    )
    raw = (
        lambda _: FILE.with_header(threshold=HEADER.threshold).require_fitted(),
        "The calibration holds statistics only, no fitted fusion block.",
        "Run zmask-export fit on it first.",
    )
    assert_says(raw, tmp_path, CalibrationError)


FORM = "the README and the shipped files show the form."
YAML: dict[str, tuple[bytes | None, type[ZMaskError], str, str]] = {
    "missing": (None, UsageError, "cannot be read", "Give the path of a YAML colour file."),
    "no text": (b"\xff", UsageError, "cannot be read", "Give the path of a YAML colour file."),
    "no YAML": (
        b"a: 1\na b",
        InputError,
        'is not valid YAML (while scanning a simple key in "<unicode string>", line 2, column 1: '
        "a b ^ could not find expected ':' in \"<unicode string>\", line 2, column 4: a b ^)",
        f"Correct the file; {FORM}",
    ),
    "a wrong field": (
        b"mean: [0, 0, 0]\nstd: [1, 1, 0]\n",
        InputError,
        "is wrong: std.2: Input should be greater than 0",
        f"Correct the named field; {FORM}",
    ),
}


@pytest.mark.parametrize("case", YAML)
def test_a_refused_yaml_file(case: str, tmp_path: Path) -> None:
    data, kind, what, fix = YAML[case]
    if data is not None:
        (tmp_path / "y").write_bytes(data)
    refusal = (lambda f: load_yaml(f / "y", Preprocess, "colour"), f"The colour @/y {what}.", fix)
    assert_says(refusal, tmp_path, kind)

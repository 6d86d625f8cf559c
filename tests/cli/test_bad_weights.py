"""Checkpoints and calibrations that cannot be used: exit code 4, and no code in them runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import load_file, save_file

from tests.conftest import Inputs, assert_refused, contents, zmask, zmask_process
from zmask_export.artifacts import calibration as calibrations
from zmask_export.artifacts.calibration import Calibration


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def _missing(path: Path, own: Path) -> Path:
    return path


def _folder(path: Path, own: Path) -> Path:
    path.mkdir()
    return path


def _truncated(path: Path, own: Path) -> Path:
    path.write_bytes(own.read_bytes()[:100_000])
    return path


def _truncated_torch(path: Path, own: Path) -> Path:
    torch.save(load_file(own), path.with_suffix(".pth"))
    data = path.with_suffix(".pth").read_bytes()
    path.with_suffix(".pth").write_bytes(data[: len(data) // 2])
    return path.with_suffix(".pth")


def _empty(path: Path, own: Path) -> Path:
    path.with_suffix(".pth").touch()
    return path.with_suffix(".pth")


def _text(path: Path, own: Path) -> Path:
    path.with_suffix(".pt").write_text("shopping list")
    return path.with_suffix(".pt")


def _foreign(path: Path, own: Path) -> Path:
    save_file({"layer1.0.conv1.weight": torch.zeros(4, 3, 3, 3)}, path)
    return path


def _wrong_shape(path: Path, own: Path) -> Path:
    state = load_file(own) | {"classification.bias": torch.zeros(3)}
    save_file(state, path)
    return path


def _nan(path: Path, own: Path) -> Path:
    state = load_file(own)
    state["classification.weight"][0, 0] = torch.nan
    save_file(state, path)
    return path


def _no_tensor(path: Path, own: Path) -> Path:
    torch.save({"epoch": 3}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


WEIGHTS: dict[Callable[[Path, Path], Path], str] = {
    _missing: "do not exist",
    _folder: "do not exist",
    _truncated: "cut short",
    _truncated_torch: "cut short",
    _empty: "cut short",
    _text: "no PyTorch checkpoint",
    _foreign: "not part of the network",
    _wrong_shape: "wrong shape",
    _nan: "not finite",
    _no_tensor: "holds no tensor",
}


@pytest.mark.parametrize("make", WEIGHTS, ids=lambda make: make.__name__.strip("_"))
def test_weights_that_cannot_be_used(
    make: Callable[[Path, Path], Path], inputs: Inputs, tmp_path: Path, out: Path
) -> None:
    path = make(tmp_path / "weights.safetensors", inputs.weights)
    options = ("--model", "icnet", "--preset", inputs.preset, "--weights", path)
    outcome = zmask("build", *options, "--images", inputs.images, "--out", out)
    assert_refused(outcome, 4, WEIGHTS[make], str(path))
    assert contents(out.parent) == []


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_with_code_in_it_does_not_run(
    form: str, inputs: Inputs, tmp_path: Path, out: Path
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights.pth"
    content = {"state_dict": {"a": torch.zeros(1)}, "trap": _Trap(marker)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    options = ("--model", "icnet", "--preset", inputs.preset, "--weights", path)
    outcome = zmask_process("calibrate", *options, "--images", inputs.images, "--out", out)
    assert_refused(outcome, 4, "nothing in them was run", str(path))
    assert not marker.exists()
    assert contents(out.parent) == []


def test_the_trap_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Trap(tmp_path / "ran")))  # noqa: S301
    assert (tmp_path / "ran").exists()


def test_new_weights_need_a_calibration(inputs: Inputs, out: Path) -> None:
    outcome = zmask("build", *inputs.own, "--out", out)
    assert_refused(outcome, 4, "no calibration yet", "--images", "--calibration")
    assert contents(out.parent) == []


def _changed(**changes: object) -> Callable[[Calibration], bytes]:
    return lambda calibration: calibration.with_header(**changes).to_bytes()


def _unfitted(calibration: Calibration) -> bytes:
    header = calibration.header.model_copy(update={"threshold": None, "fit": None})
    return Calibration(header, calibration.mean, calibration.std).to_bytes()


def _not_finite(calibration: Calibration) -> bytes:
    tap = calibration.header.defense.taps[0]
    mean = calibration.mean | {tap: np.full_like(calibration.mean[tap], np.inf)}
    return Calibration(calibration.header, mean, calibration.std, calibration.fusion).to_bytes()


def _flipped(calibration: Calibration) -> bytes:
    data = bytearray(calibration.to_bytes())
    data[4] ^= 0xFF
    return bytes(data)


CALIBRATIONS: dict[str, tuple[Callable[[Calibration], bytes], str]] = {
    "of another network": (_changed(model="othernet"), "another network (othernet, here icnet)"),
    "of other weights": (_changed(weights_sha256="0" * 64), "another weights (000000000000"),
    "of another input size": (_changed(input_size=(360, 480)), "another input size"),
    "without a fit": (_unfitted, "no fitted fusion block"),
    "of a later version": (_changed(format_version=99), "format version 99"),
    "with infinity in it": (_not_finite, "not finite"),
    "with a changed byte": (_flipped, "cut short or no safetensors file"),
    "that is cut short": (lambda c: c.to_bytes()[:-50], "cut short"),
    "that is empty": (lambda c: b"", "cut short"),
    "that is text": (lambda c: b"shopping list", "cut short"),
    "of another program": (lambda c: save({"a": np.zeros(1)}), "not one of zmask-export"),
}


@pytest.mark.parametrize("case", CALIBRATIONS)
def test_a_calibration_that_cannot_be_used(
    case: str, inputs: Inputs, calibration: Path, tmp_path: Path, out: Path
) -> None:
    spoil, word = CALIBRATIONS[case]
    path = tmp_path / "spoilt.safetensors"
    path.write_bytes(spoil(calibrations.load(calibration)))
    outcome = zmask("build", *inputs.random, "--calibration", path, "--out", out)
    assert_refused(outcome, 4, word)
    assert contents(out.parent) == []


def test_a_calibration_that_does_not_exist(inputs: Inputs, tmp_path: Path, out: Path) -> None:
    missing = tmp_path / "nosuch.safetensors"
    outcome = zmask("build", *inputs.random, "--calibration", missing, "--out", out)
    assert_refused(outcome, 4, "nosuch.safetensors", "cannot be read")
    assert contents(out.parent) == []


@pytest.mark.parametrize(
    ("option", "word"),
    [
        (("--input-size", "96x160"), "another input size"),
        (("--preprocess", "unit"), "another normalisation"),
    ],
)
def test_a_calibration_for_other_settings(
    option: tuple[str, str], word: str, inputs: Inputs, calibration: Path, out: Path
) -> None:
    given = (*inputs.random, *option, "--calibration", calibration)
    assert_refused(zmask("build", *given, "--out", out), 4, word)
    images = ("--images", inputs.images, "--patch", inputs.patch)
    assert_refused(zmask("fit", *given, *images, "--out", out), 4, word)
    assert contents(out.parent) == []


def test_a_calibration_of_other_weights_cannot_be_fitted(
    inputs: Inputs, calibration: Path, out: Path
) -> None:
    outcome = zmask(
        "fit", *inputs.own, "--calibration", calibration, "--images", inputs.images,
        "--patch", inputs.patch, "--out", out,
    )  # fmt: skip
    assert_refused(outcome, 4, "another weights")
    assert contents(out.parent) == []

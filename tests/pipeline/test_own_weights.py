"""A user's weights, images and patch: in one command, and step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Inputs, contents, zmask
from tests.drawn import save_scene
from zmask_export.artifacts import calibration as calibrations
from zmask_export.calibrate import statistics
from zmask_export.runtime.protected import load


def test_build_calibrates_and_fits(inputs: Inputs, own_bundle: Path) -> None:
    made = calibrations.load(own_bundle / "calibration.safetensors")
    assert made.fitted
    assert made.header.images == 3
    assert made.header.fit is not None
    assert made.header.fit.patches == (inputs.patch.name,)
    assert load(own_bundle).manifest.weights_sha256 == made.header.weights_sha256
    assert zmask("verify", own_bundle, *inputs.own, "--count", "1").code == 0


def test_step_by_step_gives_the_same_calibration(
    inputs: Inputs, own_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.safetensors"
    images = ("--images", inputs.images)
    # One image a pass, as build does: batches are summed in order.
    calibrated = zmask("calibrate", *inputs.own, *images, "--batch", "1", "--json", "--out", path)
    assert calibrated.code == 0, calibrated.err
    assert calibrated.record == {
        "out": str(path),
        "images": 3,
        "taps": ["res_block5", "convbnrelu1_2", "res_block2", "conv5_4_k1"],
    }
    assert not calibrations.load(path).fitted
    given = ("--calibration", path, *images, "--patch", inputs.patch)
    fitted = zmask("fit", *inputs.own, *given, "--json")
    assert fitted.code == 0, fitted.err
    assert fitted.record["out"] == str(path)
    assert fitted.record["threshold"] == calibrations.load(path).header.threshold
    assert contents(tmp_path) == ["own.safetensors"]
    assert path.read_bytes() == (own_bundle / "calibration.safetensors").read_bytes()


def test_fit_chooses_the_threshold_by_false_positives(
    inputs: Inputs, own_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fitted.safetensors"
    outcome = zmask(
        "fit", *inputs.own, "--calibration", own_bundle / "calibration.safetensors",
        "--images", inputs.images, "--patch", inputs.patch, "--epochs", "1",
        "--target-fpr", "0", "--out", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{out}: threshold ")
    assert "FPR 0.000" in outcome.out
    fit = calibrations.load(out).header.fit
    assert fit is not None
    assert fit.roc.rule == "FPR at most 0.0"
    assert fit.roc.false_positive_rate == 0


def test_a_wrapped_pytorch_checkpoint_is_the_same_network(
    inputs: Inputs, own_bundle: Path, tmp_path: Path
) -> None:
    state = {f"module.{key}": value for key, value in load_file(inputs.weights).items()}
    torch.save({"model_state": state, "epoch": 3}, tmp_path / "own.pth")
    outcome = zmask(
        "verify", own_bundle, "--model", "icnet", "--weights", tmp_path / "own.pth",
        "--preset", inputs.preset, "--count", "1",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err


def test_images_of_another_size_are_stretched(inputs: Inputs, tmp_path: Path) -> None:
    save_scene(tmp_path / "images" / "town" / "large.png", 0, (150, 200))
    outcome = zmask(
        "calibrate", *inputs.random, "--images", tmp_path / "images", "--out", tmp_path / "c"
    )
    assert outcome.code == 0, outcome.err
    assert "4 taps over 1 images" in outcome.out


def test_an_interrupted_calibration_goes_on_to_the_same_bytes(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    stop_at = 2
    measure = statistics._measure_batch

    def counted(*arguments: object) -> object:
        passes.append(1)
        if len(passes) == stop_at:
            raise KeyboardInterrupt
        return measure(*arguments)  # type: ignore[arg-type]

    def calibrate(name: str) -> int:
        passes.clear()
        given = ("--images", inputs.images, "--batch", "1", "--out", tmp_path / name)
        return zmask("calibrate", *inputs.random, *given).code

    monkeypatch.setattr(statistics, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(statistics, "_measure_batch", counted)
    assert calibrate("resumed") == 130
    assert contents(tmp_path) == [".resumed.progress"]
    stop_at = -1
    assert calibrate("resumed") == 0
    assert len(passes) == 2
    assert calibrate("straight") == 0
    assert len(passes) == 3
    assert contents(tmp_path) == ["resumed", "straight"]
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "straight").read_bytes()


def test_a_checkpoint_of_other_images_is_ignored(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / ".c.progress").write_bytes(b"nonsense")
    outcome = zmask("calibrate", *inputs.random, "--images", inputs.images, "--out", tmp_path / "c")
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path) == ["c"]
    assert np.isfinite(calibrations.load(tmp_path / "c").mean["res_block5"]).all()


@pytest.mark.parametrize(
    ("option", "field"),
    [("--registration", "registration"), ("--shallow", "shallow"), ("--deep", "deep")],
)
def test_a_calibration_of_another_defense_is_refused_not_used_silently(
    inputs: Inputs, own_bundle: Path, tmp_path: Path, option: str, field: str
) -> None:
    values = {"--registration": "paper", "--shallow": "res_block2", "--deep": "res_block5"}
    calibration = own_bundle / "calibration.safetensors"
    given = ("--calibration", calibration, option, values[option])
    outcome = zmask("build", *inputs.own, *given, "--target", "onnx", "--out", tmp_path / "x")
    assert outcome.code == 4
    assert f"has {field} " in outcome.err
    assert contents(tmp_path) == []


def test_the_fill_may_change_at_build_and_the_registration_at_fit(
    inputs: Inputs, own_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "paper.safetensors"
    fitted = zmask(
        "fit", *inputs.own, "--calibration", own_bundle / "calibration.safetensors",
        "--images", inputs.images, "--patch", inputs.patch, "--epochs", "1",
        "--registration", "paper", "--out", path,
    )  # fmt: skip
    assert fitted.code == 0, fitted.err
    before = calibrations.load(own_bundle / "calibration.safetensors").header.defense
    assert calibrations.load(path).header.defense.registration == "paper" != before.registration
    fill = "black" if before.fill == "mean" else "mean"
    built = zmask(
        "build", *inputs.own, "--calibration", path, "--registration", "paper", "--fill", fill,
        "--target", "onnx", "--out", tmp_path / "bundle",
    )  # fmt: skip
    assert built.code == 0, built.err
    assert load(tmp_path / "bundle").manifest.fill == fill


def test_images_of_own_weights_need_a_patch_of_theirs(inputs: Inputs, tmp_path: Path) -> None:
    outcome = zmask("build", *inputs.own, "--images", inputs.images, "--out", tmp_path / "x")
    assert outcome.code == 2
    assert "crafted against these weights" in outcome.err
    assert "zmask-export craft" in outcome.err

"""Modules of the user's own: presets, what cannot be exported, crafting, what their code prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import Inputs, assert_refused, contents, zmask
from tests.drawn import SIZE
from tests.foreign.graphs import TAPS
from zmask_export.runtime.protected import load


def test_a_preset_says_everything(desk: Path, inputs: Inputs) -> None:
    preset = {
        "input_size": list(SIZE), "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "bgr": True,
        "shallow": ["stem"], "deep": ["mid"], "grid": [30, 40], "shallow_kernels": [[8, 10]],
        "deep_kernels": [[4, 5]], "fill": "black", "corners": 0,
        "classes": ["road", "sky", "car", "tree", "wall"], "outputs": ["logits=out", "aux"],
    }  # fmt: skip
    (desk / "own.yaml").write_text(yaml.safe_dump(preset))
    outcome = zmask(
        "build", "--module", "own.nets:dictionary", "--preset", "own.yaml", "--images", inputs.images,
        "--patch", inputs.patch, "--target", "onnx",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    manifest = load(desk / "engines" / "nets-dictionary").manifest
    assert manifest.classes == tuple(preset["classes"])
    assert [t.name for t in manifest.outputs[:3]] == ["logits", "aux", "mask"]
    assert (manifest.fill, manifest.preprocess.bgr) == ("black", True)
    assert manifest.preprocess.mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("bessel", ("operator prims.bessel_j0",)),
        ("branches", ("nets.py, line", "scores.sum() > 0")),
    ],
)
def test_what_cannot_be_exported_is_named_before_images_are_read(
    factory: str, words: tuple[str, ...], desk: Path
) -> None:
    (desk / "images").mkdir()
    (desk / "images" / "0.png").write_bytes(b"no picture")
    outcome = zmask(
        "calibrate", "--module", f"own.nets:{factory}", *TAPS, "--images", desk / "images",
        "--out", "own.safetensors",
    )  # fmt: skip
    assert_refused(outcome, 6, "cannot be exported to ONNX", *words)
    assert not (desk / "own.safetensors").exists()


def test_a_patch_is_crafted_against_a_module(desk: Path, inputs: Inputs) -> None:
    outcome = zmask(
        "craft", "--module", "own.nets:eleven", *TAPS, "--data", inputs.camvid, "--images", 2,
        "--epochs", 1, "--out", "patch.png", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.record["model"] == "own.nets:eleven"
    assert 0 <= outcome.record["effect"]["right_patched"] <= 1
    assert "patch.png" in contents(desk)


def test_what_the_user_s_code_prints_is_no_result(desk: Path) -> None:
    outcome = zmask("plan", "--module", "own.nets:make", *TAPS, "--json")
    assert [row["tap"] for row in outcome.record["taps"]] == ["stem", "mid"]
    assert {"made", "running"} <= set(outcome.err.split())


def test_a_factory_without_weights_gives_the_same_network_again(desk: Path, inputs: Inputs) -> None:
    options = ("--module", "own.nets:make", *TAPS, "--images", inputs.images)
    written = set()
    for seed in (5, 6):
        torch.manual_seed(seed)
        outcome = zmask("calibrate", *options, "--out", f"{seed}.safetensors")
        assert outcome.code == 0, outcome.err
        written.add((desk / f"{seed}.safetensors").read_bytes())
    assert len(written) == 1

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, PngImagePlugin
from pydantic import ValidationError

from zmask_export import presets
from zmask_export.attack import patch as patches
from zmask_export.attack.detection_effect import DetectionEffect
from zmask_export.attack.effect import Effect
from zmask_export.attack.patch import PatchInfo
from zmask_export.errors import OutputError, PatchError

OLD = {
    "tool_version": "0.1.0",
    "model": "icnet",
    "weights_sha256": "ab" * 32,
    "size": [104, 139],
    "image_size": [360, 480],
    "images": 100,
    "epochs": 30,
    "seed": 0,
    "smoothness": 0.02,
    "balanced": True,
    "scale": [1.0, 1.0],
    "loss": 0.3205,
}
"""A record as the first version wrote it."""
INFO = PatchInfo(
    tool_version="0",
    model="icnet",
    weights_sha256="ab" * 32,
    size=(20, 30),
    image_size=(64, 96),
    images=3,
    epochs=4,
    seed=5,
    smoothness=0.1,
    balanced=True,
    scale=(0.8, 1.2),
    beta=0.5,
    calibration_sha256="cd" * 32,
    loss=1.5,
    evasion=-0.25,
    effect=Effect(right_clean=0.9, right_patched=0.4, flagged=1.0),
)


def _with_record(path: Path, text: str) -> Path:
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("zmask-export", text)
    Image.new("RGB", (20, 20)).save(path, pnginfo=metadata)
    return path


def test_a_patch_comes_back_with_its_record(tmp_path: Path) -> None:
    patch = torch.rand(3, 20, 30)
    path = tmp_path / "new" / "patch.png"
    patches.save(path, patch, INFO)
    loaded = patches.load(path)
    assert loaded.shape == (3, 20, 30)
    assert loaded.dtype == torch.float32
    assert loaded.is_contiguous()
    assert (loaded - patch).abs().max() <= 0.5 / 255 + 1e-6
    assert patches.info(path) == INFO


def test_a_detector_s_patch_says_what_it_was_made_for(tmp_path: Path) -> None:
    effect = DetectionEffect(found_clean=0.75, found_patched=0.5, invented=0.25, flagged=1.0)
    changes = {"goal": "false-detection", "target_class": 2, "box_weight": 0.5, "effect": effect}
    info = INFO.model_copy(update=changes)
    patches.save(tmp_path / "patch.png", torch.rand(3, 20, 30), info)
    assert patches.info(tmp_path / "patch.png") == info
    nothing = DetectionEffect(found_clean=None, found_patched=None)
    patches.save(
        tmp_path / "bald.png", torch.rand(3, 20, 30), INFO.model_copy(update={"effect": nothing})
    )
    read = patches.info(tmp_path / "bald.png")
    assert read is not None
    assert read.effect == nothing


def test_a_loaded_patch_is_saved_without_change(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    patches.save(first, torch.rand(3, 20, 30) * 1.4 - 0.2, INFO)
    loaded = patches.load(first)
    assert loaded.min() == 0
    assert loaded.max() == 1
    patches.save(second, loaded, INFO)
    assert second.read_bytes() == first.read_bytes()


def test_any_rgb_image_is_a_patch_without_a_record(tmp_path: Path) -> None:
    patches.save(tmp_path / "plain.png", torch.rand(3, 20, 30), None)
    Image.new("RGB", (20, 30)).save(tmp_path / "photo.jpg")
    for path in tmp_path.iterdir():
        assert patches.info(path) is None
        assert patches.load(path).shape[0] == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "object"),
        ("[" * 3000, "JSON"),
        ("{}", "tool_version"),
        (json.dumps(INFO.model_dump() | {"surplus": 1}), "surplus"),
        (json.dumps(INFO.model_dump() | {"size": [0, 1]}), "size"),
    ],
    ids=["empty", "cut", "list", "deep", "fields", "surplus", "range"],
)
def test_a_damaged_record_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = _with_record(tmp_path / "patch.png", text)
    with pytest.raises(PatchError, match=f"is damaged.*{why}") as caught:
        patches.info(path)
    assert "Craft" in caught.value.fix
    assert patches.load(path).shape == (3, 20, 20)


def test_an_older_record_says_what_was_fixed_then(tmp_path: Path) -> None:
    info = patches.info(_with_record(tmp_path / "old.png", json.dumps(OLD)))
    assert info is not None
    assert (info.kind, info.combine, info.beta, info.alpha) == ("adversarial", "sum", 1, 1)
    assert (info.batch, info.lr, info.printability) == (5, 0.1, 0)
    assert (info.brightness, info.contrast, info.noise) == (0.07, 0.1, 0.07)
    assert (info.loss, info.effect, info.calibration_sha256) == (0.3205, None, None)


def test_the_shipped_patch_has_a_record() -> None:
    path = presets.find("icnet").patch
    assert path is not None
    info = patches.info(path)
    assert info is not None
    assert info.model == "icnet"


@pytest.mark.parametrize("name", ["loss", "evasion", "beta", "smoothness"])
def test_a_record_holds_numbers(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        PatchInfo.model_validate(INFO.model_dump() | {name: float("nan")})


def test_a_saved_patch_is_known_before(tmp_path: Path) -> None:
    patch = torch.rand(3, 20, 30) * 1.4 - 0.2
    patches.save(tmp_path / "patch.png", patch, INFO)
    assert torch.equal(patches.load(tmp_path / "patch.png"), patches.as_saved(patch))


def test_what_is_no_rgb_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    Image.new("L", (20, 20)).save(tmp_path / "grey.png")
    for name in ("text.png", "grey.png", "none.png"):
        with pytest.raises(PatchError, match=name):
            patches.load(tmp_path / name)
    for name in ("text.png", "none.png"):
        with pytest.raises(PatchError, match=name):
            patches.info(tmp_path / name)


def test_a_patch_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        patches.save(tmp_path, torch.rand(3, 20, 20), None)

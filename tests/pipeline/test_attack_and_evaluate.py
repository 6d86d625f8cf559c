"""craft and evaluate, on a small data set in CamVid's layout."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.conftest import PATCH_SIZE, SIZE, Inputs, contents, zmask
from zmask_export.attack import patch as patches

ROWS = ("mIoU clean, bare", "recovered of the oracle", "detection AUC", "mask IoU")


def test_craft_writes_a_patch_that_says_how_it_was_made(inputs: Inputs, tmp_path: Path) -> None:
    path = tmp_path / "patch.png"
    outcome = zmask(
        "craft", *inputs.random, "--data", inputs.camvid, "--images", "2", "--epochs", "1",
        "--json", "--out", path,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path) == ["patch.png"]
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGB", PATCH_SIZE[::-1])
    info = patches.info(path)
    assert info is not None
    assert json.loads(info.model_dump_json()) == outcome.record
    assert (info.model, info.images, info.epochs) == ("icnet", 2, 1)
    assert (info.size, info.image_size) == (PATCH_SIZE, SIZE)


def test_craft_says_what_it_made(inputs: Inputs, tmp_path: Path) -> None:
    given = ("--data", inputs.camvid, "--images", "1", "--epochs", "1", "--share", "0.2")
    outcome = zmask("craft", *inputs.random, *given, "--out", tmp_path / "patch.png")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{tmp_path / 'patch.png'}: 26 x 19 pixels, attack loss ")


def test_evaluate_prints_a_table(inputs: Inputs, bundle: Path) -> None:
    outcome = zmask("evaluate", bundle, "--data", inputs.camvid, "--patch", inputs.patch)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{bundle} on 2 images\n")
    assert [row for row in ROWS if f"  {row} " not in outcome.out] == []


def test_evaluate_gives_json(inputs: Inputs, bundle: Path) -> None:
    given = ("--data", inputs.camvid, "--patch", inputs.patch, "--limit", "1", "--json")
    scores = zmask("evaluate", bundle, *given).record
    assert scores["images"] == 1
    for name in ("clean", "clean_defended", "attacked", "defended", "oracle", "auc"):
        assert 0 <= scores[name] <= 1, name
    assert zmask("evaluate", bundle, *given).record == scores

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import Inputs, assert_refused, contents, zmask, zmask_process
from tests.drawn import SIZE, save_scene

FIELDS = {"image", "flag", "score", "threshold", "covered", "classes", "files"}


def test_the_program_prints_a_line_an_image(inputs: Inputs, bundle: Path, tmp_path: Path) -> None:
    outcome = zmask_process("run", bundle, inputs.image, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.record.keys() == FIELDS
    assert outcome.record["image"] == str(inputs.image)
    assert outcome.record["files"] == {}
    assert abs(sum(outcome.record["classes"].values()) - 1) < 1e-4
    assert contents(tmp_path) == []


def test_pictures_of_an_image(inputs: Inputs, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    outcome = zmask("run", bundle, inputs.image, "--threshold", "0", "--out", out)
    assert outcome.code == 0, outcome.err
    kinds = ("mask", "overlay", "prediction")
    assert contents(out) == sorted([*(f"0.{kind}.png" for kind in kinds), "results.jsonl"])
    assert (out / "results.jsonl").read_text() == outcome.out
    pictures = {kind: Image.open(outcome.record["files"][kind]) for kind in kinds}
    assert {picture.size for picture in pictures.values()} == {SIZE[::-1]}
    assert pictures["mask"].mode == "L"
    mask = np.asarray(pictures["mask"])
    assert set(np.unique(mask)) <= {0, 255}
    assert (mask == 0).mean() == outcome.record["covered"]
    colours = np.asarray(pictures["prediction"]).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == len(outcome.record["classes"])
    assert pictures["overlay"].mode == "RGB"


def test_the_threshold_decides(inputs: Inputs, bundle: Path) -> None:
    low = zmask("run", bundle, inputs.image, "--threshold", "0").record
    high = zmask("run", bundle, inputs.image, "--threshold", "1e30").record
    assert (low["flag"], low["threshold"]) == (True, 0)
    assert (high["flag"], high["threshold"], high["covered"]) == (False, 1e30, 0)
    assert low["score"] == high["score"]
    default = zmask("run", bundle, inputs.image).record
    assert default["flag"] == (default["score"] > default["threshold"])


def test_a_mask_that_covers_too_much_is_marked(inputs: Inputs, bundle: Path) -> None:
    def record(share: str, threshold: str) -> Any:
        outcome = zmask(
            "run", bundle, inputs.image, "--max-covered", share, "--threshold", threshold
        )
        assert outcome.code == 0, outcome.err
        return outcome.record

    assert record("0", "0")["covered"] > 0
    assert record("0", "0")["trusted"] is False
    assert record("1", "0")["trusted"] is True
    assert record("0", "1e30")["trusted"] is True
    assert_refused(
        zmask("run", bundle, inputs.image, "--max-covered", "2"), 2, "covered share of 2"
    )


def test_a_folder_and_a_file_of_any_size(inputs: Inputs, bundle: Path, tmp_path: Path) -> None:
    large = save_scene(tmp_path / "large.png", 5, (150, 200))
    out = tmp_path / "results"
    outcome = zmask("run", bundle, inputs.images, large, "--out", out)
    assert outcome.code == 0, outcome.err
    records = [json.loads(line) for line in outcome.out.splitlines()]
    expected = [*sorted(inputs.images.iterdir()), large]
    assert [record["image"] for record in records] == [str(path) for path in expected]
    written = {Path(path) for record in records for path in record["files"].values()}
    assert len(written) == 12
    assert {path.name for path in out.iterdir()} == {p.name for p in written} | {"results.jsonl"}
    with Image.open(out / "0003-large.overlay.png") as overlay:
        assert overlay.size == SIZE[::-1]


def test_two_files_of_one_name_do_not_overwrite_each_other(
    inputs: Inputs, bundle: Path, tmp_path: Path
) -> None:
    for town in ("a", "b"):
        (tmp_path / town).mkdir()
        shutil.copy(inputs.image, tmp_path / town / "0.png")
    out = tmp_path / "results"
    outcome = zmask("run", bundle, tmp_path / "a" / "0.png", tmp_path / "b", "--out", out)
    assert outcome.code == 0, outcome.err
    assert len(contents(out)) == 7


def test_bad_images_are_left_out_or_converted(inputs: Inputs, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    save_scene(folder / "a.png", 0)
    with Image.open(folder / "a.png") as image:
        image.convert("L").save(folder / "grey.png")
    (folder / "note.txt").write_text("shopping list")
    skipped = zmask("run", bundle, folder, "--on-bad-image", "skip")
    assert skipped.code == 0, skipped.err
    assert skipped.record["image"] == str(folder / "a.png")
    assert skipped.err.count("left out: ") == 2
    (folder / "note.txt").unlink()
    converted = zmask("run", bundle, folder, "--on-bad-image", "convert")
    assert converted.code == 0, converted.err
    assert len(converted.out.splitlines()) == 2


def test_a_bad_image_behind_good_ones_keeps_what_was_written(
    inputs: Inputs, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("shopping list")
    out = tmp_path / "results"
    outcome = zmask("run", bundle, inputs.image, tmp_path / "bad.png", "--out", out)
    assert outcome.code == 4
    assert json.loads(outcome.out)["image"] == str(inputs.image)
    pictures = [f"0000-0.{kind}.png" for kind in ("mask", "overlay", "prediction")]
    assert contents(out) == [*pictures, "results.jsonl"]
    assert (out / "results.jsonl").read_text() == outcome.out

"""craft and evaluate, on a small data set in CamVid's layout."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import Inputs, contents, zmask
from tests.drawn import PATCH_SIZE, SIZE
from zmask_export.artifacts import calibration as calibrations
from zmask_export.artifacts.files import sha256_file
from zmask_export.attack import palette as palettes
from zmask_export.attack import patch as patches
from zmask_export.attack.craft import random_patch
from zmask_export.cli.console import ConsoleReporter

ROWS = (
    "mIoU clean, bare", "recovered of the oracle", "detection AUC", "FPR at TPR 0.95", "mask IoU",
)  # fmt: skip


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
    assert (info.kind, info.evasion, info.calibration_sha256) == ("adversarial", None, None)
    assert info.effect is not None
    assert info.effect.flagged is None


def test_craft_says_what_it_made(inputs: Inputs, tmp_path: Path) -> None:
    given = ("--data", inputs.camvid, "--images", "1", "--epochs", "1", "--share", "0.2")
    outcome = zmask("craft", *inputs.random, *given, "--out", tmp_path / "patch.png")
    assert outcome.code == 0, outcome.err
    first, second = outcome.out.splitlines()
    assert first.startswith(f"{tmp_path / 'patch.png'}: 26 x 19 pixels, adversarial, attack loss ")
    assert re.fullmatch(r"  pixels right   0\.\d{3} without the patch, 0\.\d{3} with it", second)


KINDS = {
    "over-activation": ("--beta", "0.5"),
    "adv-mask": ("--aware", "mask", "--alpha", "0.5", "--aware-images", "1"),
    "adv-flag": ("--aware", "flag", "--alpha", "0.5"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_craft_against_the_defense(
    kind: str, inputs: Inputs, calibration: Path, tmp_path: Path
) -> None:
    path = tmp_path / "patch.png"
    outcome = zmask(
        "craft", *inputs.random, "--data", inputs.camvid, "--images", "2", "--epochs", "1",
        "--calibration", calibration, *KINDS[kind], "--out", path,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    info = patches.info(path)
    assert info is not None
    assert info.kind == kind
    assert info.evasion is not None
    assert info.calibration_sha256 == calibrations.load(calibration).sha256()
    assert info.effect is not None
    assert info.effect.flagged is not None
    assert min(info.beta, info.alpha) == 0.5
    assert f"\n  evasion loss   {info.evasion:.4f}\n" in outcome.out
    assert outcome.out.endswith(f"\n  images flagged {info.effect.flagged:.3f}\n")


def test_craft_goes_on_from_a_patch_of_its_size(inputs: Inputs, tmp_path: Path) -> None:
    common = ("craft", *inputs.random, "--data", inputs.camvid, "--images", "2", "--epochs", "1")
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    assert zmask(*common, "--size", "20x30", "--out", first).code == 0
    assert zmask(*common, "--init", first, "--out", second, "--lr", "0.01").code == 0
    info = patches.info(second)
    assert info is not None
    assert info.size == (20, 30)
    assert info.lr == 0.01
    assert info.start_sha256 == sha256_file(first)
    assert float((patches.load(first) - patches.load(second)).abs().max()) < 0.1


def test_craft_of_printable_colours_and_an_exact_size(inputs: Inputs, tmp_path: Path) -> None:
    palette, path = tmp_path / "palette.txt", tmp_path / "patch.png"
    palette.write_text("0 0 0\n255 255 255\n200 30 40\n")
    outcome = zmask(
        "craft", *inputs.random, "--data", inputs.camvid, "--images", "1", "--epochs", "1",
        "--palette", palette, "--printability", "0.2", "--size", "17x40", "--combine", "paper",
        "--out", path,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    info = patches.info(path)
    assert info is not None
    assert (info.size, info.printability, info.combine) == ((17, 40), 0.2, "paper")
    assert info.palette_sha256 == palettes.sha256(palettes.load(palette))


def test_an_interrupted_craft_goes_on(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (
        "craft", *inputs.random, "--data", inputs.camvid, "--images", "2", "--epochs", "3",
        "--out",
    )  # fmt: skip
    whole, path = tmp_path / "whole.png", tmp_path / "patch.png"
    assert zmask(*given, whole).code == 0

    def interrupted(self: object, label: str, total: int) -> object:
        class _Bar(contextlib.nullcontext[object]):
            def __enter__(self) -> object:
                return advance

        def advance(done: int, note: str = "") -> None:
            if done == 2:
                raise KeyboardInterrupt

        return _Bar()

    with monkeypatch.context() as patched:
        patched.setattr(ConsoleReporter, "bar", interrupted)
        assert zmask(*given, path).code == 130
    assert contents(tmp_path) == [".patch.png.progress", "whole.png"]
    assert zmask(*given, path).code == 0
    assert contents(tmp_path) == ["patch.png", "whole.png"]
    assert path.read_bytes() == whole.read_bytes()


def test_a_random_patch_needs_no_data(inputs: Inputs, tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    for path, seed in ((first, 5), (again, 5), (other, 6)):
        outcome = zmask("craft", *inputs.random, "--random", "--seed", seed, "--out", path)
        assert outcome.code == 0, outcome.err
    assert outcome.out == f"{other}: {PATCH_SIZE[1]} x {PATCH_SIZE[0]} pixels, random\n"
    assert first.read_bytes() == again.read_bytes()
    noise = patches.load(first)
    assert not torch.equal(noise, patches.load(other))
    assert torch.equal(noise, patches.as_saved(random_patch(PATCH_SIZE, 5)))
    assert abs(float(noise.mean()) - 0.5) < 0.03
    assert abs(float(noise.std()) - 12**-0.5) < 0.02
    info = patches.info(first)
    assert info is not None
    assert (info.kind, info.epochs, info.images, info.seed) == ("random", 0, 0, 5)
    assert (info.loss, info.effect, info.data_sha256) == (None, None, None)


def test_a_random_patch_is_measured_on_data(
    inputs: Inputs, calibration: Path, tmp_path: Path
) -> None:
    path = tmp_path / "noise.png"
    outcome = zmask(
        "craft", *inputs.random, "--random", "--size", "20x20", "--data", inputs.camvid,
        "--images", "2", "--calibration", calibration, "--out", path,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    info = patches.info(path)
    assert info is not None
    assert (info.kind, info.images, info.loss) == ("random", 2, None)
    assert info.effect is not None
    assert info.effect.flagged is not None
    assert "images flagged" in outcome.out


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
        low, high = scores["intervals"][name]
        assert low <= scores[name] <= high, name
    assert zmask("evaluate", bundle, *given).record == scores


def test_evaluate_writes_a_page(inputs: Inputs, bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "deep" / "page.html"
    given = ("--data", inputs.camvid, "--patch", inputs.patch, "--limit", "1", "--html", page)
    outcome = zmask("evaluate", bundle, *given)
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path) == ["deep", "deep/page.html"]
    text = page.read_text()
    assert [row for row in ROWS if row not in text] == []
    assert "noise.png, on camvid val" in text

"""craft against a detector, on a small data set in CamVid's layout with rectangles for objects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Inputs, assert_refused, contents, zmask
from tests.data.box_trees import BOXES, content, save_images
from tests.drawn import PATCH_SIZE, SIZE, save_scene
from zmask_export.artifacts import calibration as calibrations
from zmask_export.attack import patch as patches
from zmask_export.attack.detection_effect import DetectionEffect


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes; each has a car of 30 x 40 pixels and a bicyclist of 24 x 20."""
    root = tmp_path_factory.mktemp("boxes") / "camvid"
    for index in range(3):
        save_scene(root / "train" / "images" / f"{index}.png", 10 + index)
        labels = np.zeros(SIZE, np.uint8)
        labels[50:80, 5 + 20 * index : 45 + 20 * index] = 8
        labels[10:34, 60:80] = 10
        path = root / "train" / "labels" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(labels).save(path)
    return root


@pytest.fixture
def given(inputs: Inputs, camvid: Path) -> tuple[object, ...]:
    """A detector with random weights on the small data set."""
    network = ("--model", "camvid-retinanet", "--random-weights", "--preset", inputs.preset)
    return ("craft", *network, "--data", camvid, "--images", "2", "--epochs", "1")


def test_a_patch_says_what_a_detector_shall_do(given: tuple[object, ...], tmp_path: Path) -> None:
    path = tmp_path / "patch.png"
    outcome = zmask(*given, "--box-weight", "0.5", "--json", "--out", path)
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path) == ["patch.png"]
    info = patches.info(path)
    assert info is not None
    assert json.loads(info.model_dump_json()) == outcome.record
    assert (info.model, info.images, info.kind) == ("camvid-retinanet", 2, "adversarial")
    assert (info.goal, info.target_class, info.box_weight) == ("misclassify", None, 0.5)
    assert (info.size, info.image_size) == (PATCH_SIZE, SIZE)
    assert isinstance(info.effect, DetectionEffect)
    assert info.effect.found_clean is not None
    assert (info.effect.invented, info.effect.flagged) == (None, None)


@pytest.mark.parametrize("name", ["car", "1"])
def test_a_false_detection_has_a_class(
    name: str, given: tuple[object, ...], tmp_path: Path
) -> None:
    path = tmp_path / "patch.png"
    outcome = zmask(*given, "--goal", "false-detection", "--class", name, "--out", path)
    assert outcome.code == 0, outcome.err
    first, *more = outcome.out.splitlines()
    assert first.startswith(
        f"{path}: 37 x 28 pixels, adversarial, false-detection of class 1, attack loss "
    )
    assert re.fullmatch(r"  objects found  \d\.\d{3} without the patch, \d\.\d{3} with it", more[0])
    assert re.fullmatch(r"  patch found    \d\.\d{3}, as that class", more[1])
    info = patches.info(path)
    assert info is not None
    assert (info.goal, info.target_class) == ("false-detection", 1)


def test_a_detector_s_over_activation_is_traded_for_the_attack(
    given: tuple[object, ...], inputs: Inputs, tmp_path: Path
) -> None:
    file, path = tmp_path / "statistics", tmp_path / "patch.png"
    outcome = zmask("calibrate", *given[1:6], "--images", inputs.images, "--out", file)
    assert outcome.code == 0, outcome.err
    outcome = zmask(*given, "--calibration", file, "--beta", "0.5", "--out", path)
    assert outcome.code == 0, outcome.err
    info = patches.info(path)
    assert info is not None
    assert (info.kind, info.goal) == ("over-activation", "misclassify")
    assert info.evasion is not None
    assert info.calibration_sha256 == calibrations.load(file).sha256()
    assert f"\n  evasion loss   {info.evasion:.4f}\n" in outcome.out


def test_noise_is_measured_on_a_detector(given: tuple[object, ...], tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    outcome = zmask(*given[:-2], "--random", "--out", path)
    assert outcome.code == 0, outcome.err
    info = patches.info(path)
    assert info is not None
    assert (info.kind, info.goal, info.loss) == ("random", None, None)
    assert isinstance(info.effect, DetectionEffect)
    assert "objects found" in outcome.out


DETECTOR = {
    "classes weighed alike": (["--balanced"], "a detector, has no use for --balanced"),
    "a combination of pixels": (["--combine", "sum"], "no use for --combine"),
    "a goal that is none": (["--goal", "blind"], "'blind' is not one of"),
    "a class that is not there": (
        ["--goal", "false-detection", "--class", "tram"], "finds no class 'tram'",
    ),
    "a class that is none": (["--goal", "false-detection", "--class", "4"], "no class '4'"),
    "the background": (["--goal", "false-detection", "--class", "background"], "no class"),
    "the background by number": (["--goal", "false-detection", "--class", "0"], "no class '0'"),
    "a false detection of nothing": (["--goal", "false-detection"], "need each other"),
    "a class of no false detection": (["--class", "car"], "need each other"),
    "boxes that count against": (["--box-weight", "-1"], "boxes is -1.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", DETECTOR)
def test_an_attack_on_a_detector_that_makes_no_sense(
    case: str, given: tuple[object, ...], out: Path
) -> None:
    options, word = DETECTOR[case]
    assert_refused(zmask(*given, *options, "--out", out), 2, word)
    assert contents(out.parent) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("--goal", "untargeted"), ("--class", "1"), ("--box-weight", "1")],
)
def test_what_a_detector_s_attack_has_a_segmentation_s_has_not(
    option: str, value: str, inputs: Inputs, out: Path
) -> None:
    outcome = zmask("craft", *inputs.random, "--data", inputs.camvid, option, value, "--out", out)
    assert_refused(outcome, 2, f"icnet, which is no detector, has no use for {option}")
    outcome = zmask("craft", *inputs.random, "--random", option, value, "--out", out)
    assert_refused(outcome, 2, f"A random patch has no use for {option}")
    assert contents(out.parent) == []


def _coco(root: Path, categories: list[dict[str, object]]) -> Path:
    """The small COCO tree as its split train, with some more categories."""
    record = content()
    record["categories"] = [*record["categories"], *categories]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(record))
    save_images(root / "train", BOXES)
    return root


def test_a_detector_s_classes_must_hold_those_of_the_data(
    given: tuple[object, ...], tmp_path: Path, out: Path
) -> None:
    good = _coco(tmp_path / "good", [])
    bad = _coco(tmp_path / "bad", [{"id": 90, "name": "toothbrush"}])
    command = [good if isinstance(part, Path) and part.name == "camvid" else part for part in given]
    outcome = zmask(*command, "--images", "4", "--out", out)
    assert outcome.code == 0, outcome.err
    out.unlink()
    outcome = zmask(*(bad if part == good else part for part in command), "--out", out)
    assert_refused(outcome, 4, "the class 90 (toothbrush), and the detector 1 to 3")
    assert contents(out.parent) == []

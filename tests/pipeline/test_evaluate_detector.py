"""evaluate on a detector's bundle, with a tiny detector that finds bright rectangles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.attack.detectors import SIZE
from tests.conftest import Inputs, assert_refused, zmask
from tests.data.box_trees import content, make_coco
from tests.pipeline.conftest import CLASSES, TinyDetector
from zmask_export.attack import patch as patches
from zmask_export.data.regions import RegionFolder
from zmask_export.defense.zmask import ZMask
from zmask_export.evaluate import cells, subjects
from zmask_export.evaluate.average_precision import Truths, beside_patch, judge
from zmask_export.evaluate.scores import DetectionScores
from zmask_export.evaluate.subjects import EngineNetwork, ReferenceNetwork
from zmask_export.pipeline.evaluate import evaluate_bundle
from zmask_export.runtime.detections import Detections
from zmask_export.runtime.protected import load


@pytest.fixture(scope="module")
def scores(tiny_detector: TinyDetector) -> DetectionScores:
    found = evaluate_bundle(
        tiny_detector.bundle, tiny_detector.camvid, tiny_detector.patch, resamples=50
    )
    assert isinstance(found, DetectionScores)
    return found


def independent(tiny: TinyDetector, patched: bool, covered: bool = False) -> tuple[float, float]:
    """torchvision's own detections, judged by the library: mAP at 0.5 and over all IoUs."""
    patch = patches.load(tiny.patch)
    truths, claims = [], []
    for index, sample in enumerate(RegionFolder(tiny.camvid, "val", size=SIZE)):
        image, inside = cells.scene(sample, patch if patched else None, index, 0)
        if covered:
            colour = tiny.bare.preprocess.colour(tiny.calibration.header.defense.fill)
            image[:, :, inside] = np.array(colour, np.float32)[None, :, None]
        with torch.inference_mode():
            outputs = tiny.bare.predict(torch.from_numpy(image))
        found = Detections.of({name: value[0].numpy() for name, value in outputs.items()})
        true = Truths.of(sample)
        if patched:
            rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
            place = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            true, found = beside_patch(true, found, place)
        truths.append(true)
        claims.append(found)
    judged = judge(truths, claims, dict(enumerate(CLASSES[1:], start=1)))
    assert judged.at_50 is not None
    assert judged.at_50_95 is not None
    return judged.at_50, judged.at_50_95


def test_the_numbers_are_those_of_torchvision_and_the_library(
    tiny_detector: TinyDetector, scores: DetectionScores
) -> None:
    for name, given in (("clean", (False,)), ("attacked", (True,)), ("oracle", (True, True))):
        strict = getattr(scores, f"{name}_50_95")
        expected = independent(tiny_detector, *given)
        assert (getattr(scores, name), strict) == pytest.approx(expected, abs=1e-3), name
    assert scores.clean is not None
    assert scores.clean > 0.5


def test_every_number_has_its_interval(scores: DetectionScores) -> None:
    assert scores.images == 4
    assert set(scores.intervals) == set(scores.labels)
    for name in scores.labels:
        number, ends = getattr(scores, name), scores.intervals[name]
        assert number is None or ends is None or ends[0] <= number <= ends[1], name
    assert scores.auc is not None
    assert scores.mask_iou is not None


def test_engine_and_reference_find_the_same(tiny_detector: TinyDetector) -> None:
    engine = EngineNetwork(load(tiny_detector.bundle))
    reference = ReferenceNetwork(ZMask(tiny_detector.bare, tiny_detector.calibration))
    assert (engine.threshold, engine.colour) == (reference.threshold, reference.colour)
    patch = patches.load(tiny_detector.patch)
    for index, sample in enumerate(RegionFolder(tiny_detector.camvid, "val", size=SIZE)):
        image, inside = cells.scene(sample, patch, index, 0)
        for subject in (subjects.undefended, subjects.defended, subjects.oracle):
            ours, theirs = (subject(network)(image, inside) for network in (engine, reference))
            assert ours.prediction is None
            assert theirs.prediction is None
            assert ours.detections is not None
            assert theirs.detections is not None
            assert len(ours.detections) == len(theirs.detections) > 0
            for name in ("boxes", "scores", "labels"):
                found, expected = (getattr(o.detections, name) for o in (ours, theirs))
                np.testing.assert_allclose(found, expected, atol=0.05 if name == "boxes" else 1e-4)
            assert ours.scores == pytest.approx(theirs.scores, rel=1e-4)


def test_the_command_prints_and_writes_a_page(tiny_detector: TinyDetector, tmp_path: Path) -> None:
    data = ("--data", tiny_detector.camvid, "--patch", tiny_detector.patch, "--limit", "2")
    outcome = zmask("evaluate", tiny_detector.bundle, *data, "--html", tmp_path / "page.html")
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "page.html").read_text()
    for label, _ in DetectionScores.labels.values():
        assert f"\n  {label} " in outcome.out
        assert label in page
    assert "mIoU" not in outcome.out + page
    record = zmask("evaluate", tiny_detector.bundle, *data, "--json").record
    assert DetectionScores.model_validate_json(json.dumps(record)).images == 2


def write(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def test_data_that_does_not_fit_the_network_is_refused(
    tiny_detector: TinyDetector, inputs: Inputs, bundle: Path, tmp_path: Path
) -> None:
    detector = ("evaluate", tiny_detector.bundle, "--patch", tiny_detector.patch)
    record = content()
    record["categories"] = [*record["categories"], {"id": 5, "name": "airplane"}]
    coco = make_coco(tmp_path / "coco", record)
    split = ("--data", coco, "--split", "val2017")
    assert_refused(zmask(*detector, *split), 4, "labels 1 to 5, and the detector's 1 to 3")
    alone = tmp_path / "alone"
    write(alone / "val" / "images" / "0.png", Image.new("RGB", (80, 64)))
    assert_refused(zmask(*detector, "--data", alone), 4, "no known layout")
    assert_refused(zmask(*detector, "--data", tmp_path / "nosuch"), 4, "nosuch is no folder")
    segmenter = ("evaluate", bundle, "--patch", inputs.patch)
    assert_refused(zmask(*segmenter, *split), 4, "neither CamVid's layout")


def test_a_patch_larger_than_the_image_is_refused_at_once(
    tiny_detector: TinyDetector, tmp_path: Path
) -> None:
    patch = write(tmp_path / "large.png", Image.new("RGB", (81, 40)))
    outcome = zmask(
        "evaluate", tiny_detector.bundle, "--data", tiny_detector.camvid, "--patch", patch
    )
    assert_refused(outcome, 4, "81 x 40 does not fit an image of 80 x 64")
    assert "evaluating" not in outcome.err


def test_without_an_object_to_find_there_is_no_map(
    tiny_detector: TinyDetector, tmp_path: Path
) -> None:
    empty = Path(shutil.copytree(tiny_detector.camvid, tmp_path / "empty"))
    for path in (empty / "val" / "labels").iterdir():
        write(path, Image.new("L", (80, 64)))
    outcome = zmask(
        "evaluate", tiny_detector.bundle, "--data", empty, "--patch", tiny_detector.patch
    )
    assert outcome.code == 0, outcome.err
    lines = {line[2:25].strip(): line for line in outcome.out.splitlines()}
    assert lines["mAP@0.5 clean, bare"].split()[-1] == "-"
    assert lines["detection AUC"].split()[-1] != "-"

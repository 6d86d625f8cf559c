"""run on a detector's bundle: objects in the lines, boxes in the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import contents, zmask
from tests.pipeline.conftest import CLASSES, TinyDetector
from zmask_export.runtime.protected import load


def test_objects_are_listed_and_drawn(tiny_detector: TinyDetector, tmp_path: Path) -> None:
    image = min((tiny_detector.camvid / "val" / "images").iterdir())
    outcome = zmask("run", tiny_detector.bundle, image, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert "classes" not in record
    pixels = np.asarray(Image.open(image).convert("RGB"))
    result = load(tiny_detector.bundle)(pixels)
    assert result.prediction is None
    assert result.detections is not None
    assert len(record["objects"]) == len(result.detections) > 0
    first = record["objects"][0]
    assert first["label"] in CLASSES
    assert first["score"] == round(float(result.detections.scores[0]), 6)
    np.testing.assert_allclose(first["box"], result.detections.boxes[0], atol=0.01)
    stem = image.stem
    assert contents(tmp_path) == [f"{stem}.mask.png", f"{stem}.overlay.png", "results.jsonl"]
    drawn = np.asarray(Image.open(tmp_path / f"{stem}.overlay.png"))
    assert (drawn != pixels).any()

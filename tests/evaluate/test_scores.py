from __future__ import annotations

import numpy as np
import pytest

from tests.evaluate.boxes import found, sample
from zmask_export.evaluate.bootstrap import Resamples
from zmask_export.evaluate.cells import Cell
from zmask_export.evaluate.objects import ObjectDetection
from zmask_export.evaluate.quality import Clean
from zmask_export.evaluate.scores import DetectionScores, Scores, SegmentationScores
from zmask_export.evaluate.segmentation import Overlaps
from zmask_export.evaluate.subjects import Outcome
from zmask_export.evaluate.task import Record

IMAGES = 10
BOXES = [(20 * k, 0, 20 * k + 18, 18) for k in range(4)]


def objects(share: float) -> Record:
    """Four objects an image, of which the first ``4 * share`` are found: mAP is about ``share``."""
    count = round(4 * share)
    task = ObjectDetection()
    outcome = Outcome(detections=found(*BOXES[:count], scores=[0.9, 0.8, 0.7, 0.6][:count]))
    part = task.judge(outcome, sample(*BOXES), np.zeros((60, 80), bool))
    assert part is not None
    return task.join([part] * IMAGES)


def pixels(share: float) -> Record:
    """One class whose IoU is ``share``."""
    return Overlaps(np.array([[[round(1000 * share)], [1000]]] * IMAGES, np.int64))


def scores(kind: type[Scores], record: type[object] | object) -> Scores:
    """Clean 1.0 and 0.75 defended; attacked 0.25, defended 0.5, oracle 0.75."""
    make = record
    assert callable(make)
    numbers = np.linspace(0, 1, IMAGES)
    clean = Clean(
        {
            "none": Cell(make(1.0)),
            "zmask": Cell(make(0.75), np.zeros(IMAGES), numbers / 100, {"zmask": numbers}),
        },
        0.95,
        Resamples(IMAGES, 60),
    )
    patched = Cell(make(0.5), np.full(IMAGES, 0.7), numbers, {"zmask": numbers + 0.5})
    attacked = {"none": Cell(make(0.25)), "zmask": patched, "oracle": Cell(make(0.75))}
    return kind.of(clean, attacked)


def close(**expected: float) -> object:
    return pytest.approx(expected, abs=0.011)


RUNS = {"clean": 1.0, "clean_defended": 0.75, "attacked": 0.25, "defended": 0.5, "oracle": 0.75}
DEFENSE = {"recovered": 0.5, "true_positive_rate": 0.5, "false_positive_rate": 0.1}
REST = {"mask_iou": 0.7, "clean_masked": 0.005}


def test_the_table_of_a_detector() -> None:
    table = scores(DetectionScores, objects)
    assert isinstance(table, DetectionScores)
    expected = {**RUNS, **DEFENSE, **REST, "clean_lost": 0.25, "taken": 0.75}
    expected |= {f"{name}_50_95": value for name, value in RUNS.items()}
    # Every box is found exactly or not at all, so that all thresholds give one number.
    assert {name: getattr(table, name) for name in expected} == close(**expected)
    assert table.images == IMAGES
    assert list(table.intervals) == list(DetectionScores.labels)
    labels = [label for label, _, _ in table.lines()]
    assert labels[0] == "mAP@0.5 clean, bare"
    assert "mAP@[.5:.95] attacked, oracle" in labels
    assert not any("mIoU" in label for label in labels)
    assert DetectionScores.model_validate_json(table.model_dump_json()) == table


def test_the_table_of_a_segmentation() -> None:
    table = scores(SegmentationScores, pixels)
    expected = {**RUNS, **DEFENSE, **REST}
    assert {name: getattr(table, name) for name in expected} == close(**expected)
    assert list(table.intervals) == list(SegmentationScores.labels)
    assert next(table.lines())[:2] == ("mIoU clean, bare", "1.0000")
    assert SegmentationScores.model_validate_json(table.model_dump_json()) == table


def test_what_is_not_defined_is_a_dash() -> None:
    table = scores(DetectionScores, lambda share: objects(0.0))
    assert (table.clean, table.recovered) == (0.0, None)
    assert isinstance(table, DetectionScores)
    assert (table.clean_lost, table.taken) == (None, None)
    lines = {label: (number, interval) for label, number, interval in table.lines()}
    assert lines["recovered of the oracle"] == lines["mAP taken, share"] == ("-", "")

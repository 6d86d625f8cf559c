from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluate.boxes import SIZE, A, B, C, drawn, found, sample
from zmask_export.evaluate import cells
from zmask_export.evaluate.average_precision import judge
from zmask_export.evaluate.bootstrap import Resamples
from zmask_export.evaluate.cells import Cell
from zmask_export.evaluate.objects import Finds, ObjectDetection
from zmask_export.evaluate.quality import Clean, row
from zmask_export.evaluate.segmentation import Segmentation
from zmask_export.evaluate.subjects import Image, Inside, Outcome
from zmask_export.runtime.detections import Detections

TASK = ObjectDetection()
NOWHERE = np.zeros(SIZE, bool)
NAMES = {1: "car", 2: "pedestrian", 3: "bicyclist"}


def value(record: Finds, name: str = "map_50") -> float:
    return float(record.metrics()[name](np.ones((1, len(record.truths))))[0])


def record(*images: tuple[object, Detections]) -> Finds:
    parts = [TASK.judge(Outcome(detections=d), s, NOWHERE) for s, d in images]
    return TASK.join([part for part in parts if part is not None])


def test_half_of_two_objects_is_half_of_the_recalls() -> None:
    half = record((sample(A, B), found(A, scores=[0.9])))
    assert value(half) == pytest.approx(51 / 101)
    whole = record((sample(A, B), found(A, B, scores=[0.9, 0.8])))
    assert (value(whole), value(whole, "map_50_95")) == pytest.approx((1, 1))
    # Moved by a seventh of its width, a box has IoU 0.75: it counts at six of ten thresholds.
    moved = record((sample((0, 0, 70, 20)), found((10, 0, 80, 20), scores=[0.9])))
    assert (value(moved), value(moved, "map_50_95")) == pytest.approx((1, 0.6))


def test_the_mean_is_over_classes_with_objects_that_count() -> None:
    small = sample(A, B, C, labels=[1, 2, 3], crowd=[False, False, True])
    assert value(record((small, found(A, scores=[0.9])))) == pytest.approx(0.5)
    assert np.isnan(value(record((sample(A, crowd=[True]), found(A, scores=[0.9])))))
    assert np.isnan(value(record((sample(), found(B, scores=[0.9])))))


def test_a_subject_that_only_scores_is_not_judged() -> None:
    assert TASK.judge(Outcome(scores={"hn": 1.0}), sample(A), NOWHERE) is None
    assert Segmentation(3).judge(Outcome(detections=found(scores=[])), sample(A), NOWHERE) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [(0, 0), (60 - 31, 80 - 41), (7, 11)])
def test_what_is_under_the_patch_does_not_count(place: tuple[int, int]) -> None:
    """The patch hides A's copy below it, and a find in it; one pixel less and both would count."""
    top, left = place
    inside = NOWHERE.copy()
    inside[top : top + 31, left : left + 41] = True
    hidden = (left, top, left + 41, top + 31)
    half = (left + 20.4, top, left + 61.4, top + 31)  # 0.5024 under the patch
    beside = (left + 20.6, top, left + 61.6, top + 31)  # 0.4976
    part = TASK.judge(
        Outcome(detections=found(hidden, half, beside, scores=[0.9, 0.8, 0.7])),
        sample(hidden, half, beside),
        inside,
    )
    assert part is not None
    truths, kept = part
    assert truths.crowd.tolist() == [True, True, False]
    assert kept.scores.tolist() == pytest.approx([0.7])
    assert value(TASK.join([part])) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 6))
def test_the_metrics_are_the_librarys(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    finds = record(*(drawn(rng) for _ in range(images)))
    judged = judge(finds.truths, finds.found, NAMES)
    expected = [np.nan if v is None else v for v in (judged.at_50, judged.at_50_95)]
    values = [value(finds, name) for name in ("map_50", "map_50_95")]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_some_of_the_images_are_a_record_of_their_own() -> None:
    rng = np.random.default_rng(1)
    images = [drawn(rng) for _ in range(9)]
    whole, some = record(*images), record(*(images[i] for i in (1, 4, 8)))
    weights = np.zeros((1, 9))
    weights[0, [1, 4, 8]] = 1
    assert value(whole.of((1, 4, 8))) == value(some)
    assert value(some) == whole.metrics()["map_50"](weights)[0]


def assert_same(a: Finds, b: Finds) -> None:
    first, second = a.tensors(), b.tensors()
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        np.testing.assert_array_equal(tensor, second[name])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 5))
def test_a_record_comes_back_from_its_tensors(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    finds = record(*(drawn(rng) for _ in range(images)))
    again = TASK.read(finds.tensors())
    assert again is not None
    assert len(again.truths) == len(again.found) == images
    assert_same(finds, again)


def test_a_stored_cell_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    finds = record(*(drawn(rng) for _ in range(5)), (sample(), found(scores=[])))
    cell = Cell(finds, np.full(6, 0.5), np.full(6, 0.1), {"zmask": np.arange(6.0)})
    cells.save(tmp_path / "cell", cell, "x")
    loaded = cells.load(tmp_path / "cell", "x", TASK)
    assert loaded is not None
    assert isinstance(loaded.record, Finds)
    assert_same(finds, loaded.record)
    assert loaded.scores["zmask"].tolist() == [0, 1, 2, 3, 4, 5]
    before = (tmp_path / "cell").read_bytes()
    cells.save(tmp_path / "cell", loaded, "x")
    assert (tmp_path / "cell").read_bytes() == before


@pytest.mark.parametrize("name", ["found/count", "found/boxes", "truth/labels"])
def test_a_cell_whose_parts_do_not_fit_is_not_used(tmp_path: Path, name: str) -> None:
    class Cut(Finds):
        def tensors(self) -> dict[str, np.ndarray]:
            tensors = super().tensors()
            return tensors | {name: tensors[name][:-1]}

    finds = record((sample(A), found(A, B, scores=[0.9, 0.8])), (sample(B), found(scores=[])))
    cut = Cut(finds.truths, finds.found)
    cells.save(tmp_path / "cell", Cell(cut), "x")
    assert cells.load(tmp_path / "cell", "x", TASK) is None


def test_a_cell_measures_boxes_beside_the_patch_at_its_place() -> None:
    """A subject that finds the patch itself, and on the clean side every object."""
    samples = [sample(A, B), sample(C), sample()]
    turn = iter(samples * 2)

    def subject(image: Image, inside: Inside) -> Outcome:
        true = next(turn)
        boxes = [*true.boxes.tolist()]
        if inside.any():
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            boxes.insert(0, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        scores = np.linspace(0.9, 0.5, len(boxes)).tolist()
        return Outcome(None, ~inside, {"zmask": 1.0}, found(*boxes, scores=scores))

    clean = cells.measure(subject, samples, TASK)
    patched = cells.measure(subject, samples, TASK, torch.ones(3, 12, 15))
    for cell in (clean, patched):
        assert isinstance(cell.record, Finds)
        assert value(cell.record) == pytest.approx(1)
    assert isinstance(patched.record, Finds)
    assert [len(image) for image in patched.record.found] == [2, 1, 0]
    assert patched.mask_iou is not None
    assert patched.mask_iou.tolist() == [1, 1, 1]


def hits(found_of_four: int) -> Finds:
    """Eight images with four objects each; a network that finds the first so many of them."""
    boxes = [(20 * k, 0, 20 * k + 18, 18) for k in range(4)]
    scores = [0.9, 0.8, 0.7, 0.6][:found_of_four]
    return record(*[(sample(*boxes), found(*boxes[:found_of_four], scores=scores))] * 8)


def test_a_row_of_detections() -> None:
    draw = Resamples(8, 50)
    clean = Clean({"none": Cell(hits(4)), "zmask": Cell(hits(4))}, 1.0, draw)
    cells_of = {"none": Cell(hits(1)), "zmask": Cell(hits(3)), "oracle": Cell(hits(4))}
    patched = row("L", cells_of, clean)
    assert patched.miou == {}
    found_values = {name: estimate.value for name, estimate in patched.map_50.items()}
    assert found_values == pytest.approx({"none": 26 / 101, "zmask": 76 / 101, "oracle": 1})
    assert patched.quality == patched.map_50
    assert patched.map_50_95["zmask"].value == pytest.approx(76 / 101)
    assert patched.recovered is not None
    assert patched.recovered.value == pytest.approx(50 / 75)
    assert row("beta 0.1", cells_of, clean, 0.1).map_50_95 == {}

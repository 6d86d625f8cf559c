from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.errors import PatchError
from zmask_export.evaluate import cells
from zmask_export.evaluate.cells import Cell
from zmask_export.evaluate.segmentation import Overlaps, Segmentation
from zmask_export.evaluate.subjects import Image, Inside, Outcome

SIZE = (20, 30)
TASK = Segmentation(3)
PATCH = torch.full((3, 6, 8), 0.5)
RNG = np.random.default_rng(0)
SAMPLES = [
    Sample(
        Path(f"{index}.png"),
        RNG.integers(0, 100, (*SIZE, 3), dtype=np.uint8),
        np.where(RNG.random(SIZE) < 0.1, IGNORE, RNG.integers(0, 3, SIZE)).astype(np.uint8),
    )
    for index in range(3)
]


def where_grey(image: Image) -> Inside:
    """Where the patch is: no pixel of the samples reaches its grey."""
    return (image[0] == 0.5).all(0)


def contents(cell: Cell) -> dict[str, np.ndarray]:
    """Everything in a cell, by name."""
    found = {} if cell.record is None else dict(cell.record.tensors())
    found |= {f"score/{name}": scores for name, scores in cell.scores.items()}
    numbers = {"mask_iou": cell.mask_iou, "covered": cell.covered}
    return found | {name: value for name, value in numbers.items() if value is not None}


def assert_same(a: Cell, b: Cell) -> None:
    found, expected = contents(a), contents(b)
    assert list(found) == list(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])
        assert value.dtype == expected[name].dtype


def test_a_scene_is_the_image_with_the_patch_in_one_place() -> None:
    clean, nowhere = cells.scene(SAMPLES[0], None, 0, seed=0)
    assert not nowhere.any()
    image, inside = cells.scene(SAMPLES[0], PATCH, 0, seed=0)
    assert (image.dtype, image.shape, inside.shape) == (np.float32, (1, 3, *SIZE), SIZE)
    np.testing.assert_array_equal(where_grey(image), inside)
    assert inside.sum() == 6 * 8
    np.testing.assert_array_equal(image[0][:, ~inside], clean[0][:, ~inside])


def test_patches_of_one_size_lie_at_one_place() -> None:
    _, inside = cells.scene(SAMPLES[0], PATCH, 0, seed=0)
    np.testing.assert_array_equal(inside, cells.scene(SAMPLES[1], PATCH * 2, 0, seed=0)[1])
    places = {
        cells.scene(SAMPLES[0], PATCH, i, seed=s)[1].tobytes() for i in range(4) for s in (0, 1)
    }
    assert len(places) == 8


def test_a_patch_larger_than_the_image_is_refused() -> None:
    with pytest.raises(PatchError, match="does not fit"):
        cells.scene(SAMPLES[0], torch.zeros(3, 21, 5), 0, seed=0)


def test_a_cell_counts_outside_the_patch_and_per_image() -> None:
    """A subject that is right outside the patch, wrong inside it, and masks all but its first row."""
    turn = iter(SAMPLES)

    def subject(image: Image, inside: Inside) -> Outcome:
        labels = next(turn).labels
        covered = inside.copy()
        covered[np.flatnonzero(inside.any(1))[0]] = False
        prediction = np.where(inside | (labels == IGNORE), 2, labels).astype(np.uint8)
        return Outcome(prediction, ~covered, {"mean": float(image.mean())})

    seen: list[int] = []
    cell = cells.measure(subject, SAMPLES, TASK, PATCH, on_image=seen.append)
    assert seen == [1, 2, 3]
    assert isinstance(cell.record, Overlaps)
    for index, sample in enumerate(SAMPLES):
        image, inside = cells.scene(sample, PATCH, index, 0)
        outside = np.bincount(sample.labels[~inside & (sample.labels != IGNORE)], minlength=3)
        np.testing.assert_array_equal(cell.record.counts[index], [outside, outside])
        assert cell.scores["mean"][index] == pytest.approx(image.mean())
    np.testing.assert_allclose(cell.mask_iou, 5 / 6)
    np.testing.assert_allclose(cell.covered, 5 * 8 / 600)


def test_a_detector_has_scores_alone() -> None:
    cell = cells.measure(lambda image, inside: Outcome(scores={"b": 2.0, "a": 1.0}), SAMPLES, TASK)
    assert (cell.record, cell.mask_iou, cell.covered) == (None, None, None)
    assert {name: scores.tolist() for name, scores in cell.scores.items()} == {
        "a": [1.0] * 3,
        "b": [2.0] * 3,
    }


@pytest.fixture
def cell() -> Cell:
    return Cell(
        record=Overlaps(RNG.integers(0, 99, (3, 2, 4))),
        mask_iou=RNG.random(3),
        covered=RNG.random(3),
        scores={"zmask": RNG.random(3)},
    )


def test_a_stored_cell_comes_back_to_the_last_bit(cell: Cell, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cell.safetensors"
    cells.save(path, cell, "identity")
    loaded = cells.load(path, "identity", TASK)
    assert loaded is not None
    assert_same(cell, loaded)
    before = path.read_bytes()
    cells.save(path, loaded, "identity")
    assert path.read_bytes() == before


def test_a_detectors_cell_comes_back(tmp_path: Path) -> None:
    cell = Cell(scores={"hn": np.array([1.0, 2.0])})
    cells.save(tmp_path / "cell", cell, "x")
    loaded = cells.load(tmp_path / "cell", "x", TASK)
    assert loaded is not None
    assert_same(cell, loaded)


def test_a_cell_of_other_settings_is_not_used(cell: Cell, tmp_path: Path) -> None:
    assert cells.load(tmp_path / "absent", "x", TASK) is None
    cells.save(tmp_path / "cell", cell, "x")
    assert cells.load(tmp_path / "cell", "y", TASK) is None


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_damaged_cell_is_not_used(cell: Cell, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cell"
    cells.save(path, cell, "x")
    path.write_bytes(path.read_bytes()[:keep])
    assert cells.load(path, "x", TASK) is None


def test_every_setting_changes_the_fingerprint() -> None:
    settings = {"subject": {"graph": "1", "threshold": 0.5}, "patch": None, "seed": 0}
    other = [{**settings, "seed": 1}, {**settings, "patch": "2"}, {**settings, "subject": {}}]
    prints = {cells.fingerprint(s) for s in (settings, *other)}
    assert len(prints) == 4
    assert cells.fingerprint(dict(reversed(settings.items()))) in prints

"""What a loaded bundle makes of an engine's arrays, with a runner that says what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime.stand_ins import CLASSES, SIZE, OnGpu, Recorder, manifest
from zmask_export.backends import dlpack
from zmask_export.backends.runner import DeviceArray
from zmask_export.errors import ShapeError, UsageError
from zmask_export.runtime.choice import Choice
from zmask_export.runtime.inputs import BatchLimit
from zmask_export.runtime.protected import Protected

ANY_BATCH = BatchLimit()
SCORES = np.array([0.25, 0.75, 0.5, 1.0, 0.0], np.float32)


def images(count: int = 5) -> NDArray[np.float32]:
    """Images that the recorder scores with SCORES."""
    made = np.zeros((count, 3, *SIZE), np.float32)
    made[:, 0, 0, 0] = SCORES[:count]
    return made


def protected(
    runner: Recorder, *, limit: BatchLimit = ANY_BATCH, max_covered: float | None = None
) -> Protected:
    choice = Choice(runner, limit, ("It is not here.",))
    return Protected(manifest(), choice, max_covered=max_covered)


def test_it_says_what_it_was_made_of() -> None:
    runner = Recorder()
    engine = protected(runner, max_covered=0.5)
    assert engine.manifest == manifest()
    assert engine.runner is runner
    assert engine.passed_over == ("It is not here.",)
    assert engine.max_covered == 0.5
    assert Protected(manifest(), Choice(runner, BatchLimit())).max_covered is None


@pytest.mark.parametrize(
    ("given", "limit", "flags"),
    [
        (None, 0.5, [False, True, False, True, False]),  # the manifest's
        (0.25, 0.25, [False, True, True, True, False]),
        (0, 0.0, [True, True, True, True, False]),
        (1e30, 1e30, [False] * 5),
    ],
)
def test_a_score_is_compared_with_the_threshold(
    given: float | None, limit: float, flags: list[bool]
) -> None:
    runner = Recorder()
    results = protected(runner)(images(), threshold=given)
    assert [result.score for result in results] == SCORES.tolist()
    assert [result.flag for result in results] == flags
    assert {result.threshold for result in results} == {limit}
    threshold = runner.seen[0]["threshold"]
    np.testing.assert_array_equal(threshold, np.array([limit], np.float32), strict=True)
    for result in results:
        assert [type(v) for v in (result.flag, result.score, result.threshold)] == [
            bool, float, float,
        ]  # fmt: skip


def test_every_image_gets_its_own_rows() -> None:
    results = protected(Recorder())(images())
    for row, result in enumerate(results):
        cells = np.arange(6 * row, 6 * row + 6, dtype=np.float32).reshape(2, 3)
        np.testing.assert_array_equal(result.soft_mask, cells, strict=True)
        np.testing.assert_array_equal(result.heatmap_shallow, cells + 100, strict=True)
        np.testing.assert_array_equal(result.heatmap_deep, cells + 200, strict=True)
        mask = np.ones(SIZE, bool)
        mask[:2, :3] = not result.flag
        np.testing.assert_array_equal(result.mask, mask, strict=True)
        assert result.outputs.keys() == {
            "mask", "score", "flag", "soft_mask", "heatmap_shallow", "heatmap_deep",
        }  # fmt: skip
        assert result.outputs["mask"].shape == (1, *SIZE)
        assert result.outputs["score"] == SCORES[row]
        assert result.prediction is None
        assert result.detections is None
        assert result.trusted


def test_a_batch_is_cut_and_filled_for_the_engine() -> None:
    runner = Recorder()
    results = protected(runner, limit=BatchLimit(2, exact=True))(images())
    assert [len(inputs["image"]) for inputs in runner.seen] == [2, 2, 2]
    assert [result.score for result in results] == SCORES.tolist()


def test_one_image_gives_one_result_or_a_list_of_it() -> None:
    engine = protected(Recorder())
    image = images()[1]
    assert engine(image).score == 0.75
    assert [result.score for result in engine.run(image)] == [0.75]
    assert [result.score for result in engine(image[None])] == [0.75]
    assert not engine.run(image, threshold=0.75)[0].flag
    assert not engine(image, threshold=0.75).flag


@pytest.mark.parametrize(
    ("share", "trusted"), [(None, True), (1, True), (0.25, True), (0.249, False), (0, False)]
)
def test_a_mask_may_cover_the_stated_share_itself(share: float | None, trusted: bool) -> None:
    # A quarter of the image is covered where it is flagged, and nothing elsewhere.
    results = protected(Recorder(), max_covered=share)(images(2))
    assert [result.trusted for result in results] == [True, trusted]


def test_a_pixel_is_kept_above_a_half() -> None:
    mask = np.linspace(0, 1, 24, dtype=np.float32).reshape(1, 1, *SIZE)
    mask[0, 0, 1, 5] = 0.5
    result = protected(Recorder(mask=mask))(images(1))[0]
    np.testing.assert_array_equal(result.mask.ravel(), [False] * 12 + [True] * 12)


def test_the_prediction_is_the_likeliest_class_of_the_nearest_cell() -> None:
    logits = np.zeros((2, len(CLASSES), 2, 3), np.float32)
    cells = np.array([[[0, 1, 2], [2, 0, 1]], [[1, 1, 0], [0, 2, 2]]], np.uint8)
    for n, row, column in np.ndindex(cells.shape):
        logits[n, cells[n, row, column], row, column] = 5
    results = protected(Recorder(logits=logits))(images(2))
    for result, own in zip(results, cells, strict=True):
        expected = own.repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(result.prediction, expected, strict=True)


def test_logits_of_the_image_s_size_are_not_looked_up() -> None:
    cells = np.random.default_rng(0).integers(0, len(CLASSES), SIZE)
    logits = np.eye(len(CLASSES), dtype=np.float32)[cells].transpose(2, 0, 1)[None]
    prediction = protected(Recorder(logits=logits))(images(1))[0].prediction
    np.testing.assert_array_equal(prediction, cells.astype(np.uint8), strict=True)


def test_cells_of_a_size_that_does_not_divide_the_image() -> None:
    cells = np.array([[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]], np.uint8)
    logits = np.eye(len(CLASSES), dtype=np.float32)[cells].transpose(2, 0, 1)[None]
    prediction = protected(Recorder(logits=logits))(images(1))[0].prediction
    expected = cells[[0, 0, 1, 2]][:, [0, 0, 1, 2, 2, 3]]
    np.testing.assert_array_equal(prediction, expected, strict=True)


def test_a_detector_gives_its_objects() -> None:
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    made: dict[str, NDArray[Any]] = {
        "boxes": boxes,
        "scores": np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]], np.float32),
        "labels": np.array([[1, 2, 1], [2, 1, 2]]),
        "count": np.array([1, 2]),
    }
    results = protected(Recorder(**made))(images(2))
    for row, count in ((0, 1), (1, 2)):
        found = results[row].detections
        assert found is not None
        np.testing.assert_array_equal(found.boxes, boxes[row, :count])
        np.testing.assert_array_equal(found.labels, made["labels"][row, :count])
        assert results[row].prediction is None


@pytest.mark.parametrize("threshold", [-0.001, float("nan"), float("-inf")])
def test_what_is_no_threshold_never_reaches_the_engine(threshold: float) -> None:
    runner = Recorder()
    with pytest.raises(UsageError, match="is not possible"):
        protected(runner)(images(1), threshold=threshold)
    assert runner.seen == []


def test_a_score_on_a_gpu_that_is_no_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlpack, "wait_for_default_stream", lambda number: None)
    runner = Recorder()
    with pytest.raises(ShapeError) as caught:
        protected(runner)(OnGpu(images(2)))
    assert isinstance(runner.seen[0]["image"], DeviceArray)
    assert caught.value.what == "The image on the GPU gives a score that is no number."
    assert caught.value.fix == "Look for NaN and infinity in it; values lie in [0, 1]."
    # One of several is enough, and none where all are numbers.
    mixed = protected(Recorder(score=np.array([0.5, np.inf], np.float32)))
    with pytest.raises(ShapeError, match="no number"):
        mixed(OnGpu(images(2)))
    assert mixed(OnGpu(images(1)))[0].score == 0.5


def test_a_score_in_main_memory_that_is_no_number_is_a_result() -> None:
    score = np.array([np.nan, np.inf], np.float32)
    results = protected(Recorder(score=score))(images(2))
    assert np.isnan(results[0].score)
    assert results[1].score == np.inf


def test_it_closes_what_runs() -> None:
    runner = Recorder()
    engine = protected(runner)
    with engine as entered:
        assert entered is engine
        assert runner.closed == 0
    assert runner.closed == 1
    for use in (engine, engine.run):
        with pytest.raises(UsageError) as caught:
            use(images(1))
        assert caught.value.what == "The engine is closed."
        assert caught.value.fix == "Load the bundle again."
    assert runner.seen == []

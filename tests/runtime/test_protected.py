"""The Python runtime: zmask_export.load and what it returns."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import zmask_export
from tests.conftest import ONE_THREAD, link_tree, zmask
from tests.drawn import SIZE
from zmask_export.backends import dlpack
from zmask_export.data.images import to_float
from zmask_export.data.scene import draw_scene
from zmask_export.errors import BundleError, ImageError, ShapeError, UsageError
from zmask_export.runtime import choice
from zmask_export.runtime.pictures import colour_prediction
from zmask_export.runtime.protected import Protected, Result

GRID = (30, 40)


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Protected:
    return zmask_export.load(bundle)


@pytest.fixture(scope="module")
def scenes() -> list[NDArray[np.uint8]]:
    """Four scenes, every second one with a square of noise."""
    rng = np.random.default_rng(0)
    drawn = [draw_scene(SIZE, seed).copy() for seed in range(4)]
    for scene in drawn[1::2]:
        scene[20:60, 30:70] = rng.integers(0, 256, (40, 40, 3))
    return drawn


def _one(result: Result | list[Result]) -> Result:
    assert isinstance(result, Result)
    return result


def _same(a: Result, b: Result) -> None:
    assert (a.flag, a.threshold) == (b.flag, b.threshold)
    assert a.score == pytest.approx(b.score, rel=1e-5)
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_allclose(a.outputs["logits"], b.outputs["logits"], rtol=1e-4, atol=1e-4)


def test_a_result_has_the_stated_types(engine: Protected, scenes: list[NDArray[np.uint8]]) -> None:
    result = _one(engine(scenes[1]))
    assert (result.prediction.shape, result.prediction.dtype) == (SIZE, np.uint8)
    assert (result.mask.shape, result.mask.dtype) == (SIZE, np.bool_)
    assert type(result.flag) is bool
    assert type(result.score) is float
    assert result.flag == (result.score > result.threshold)
    for heatmap in (result.soft_mask, result.heatmap_shallow, result.heatmap_deep):
        assert (heatmap.shape, heatmap.dtype) == (GRID, np.float32)
        assert np.isfinite(heatmap).all()
    assert result.threshold == engine.manifest.threshold
    assert result.outputs.keys() == {output.name for output in engine.manifest.outputs}


def test_bytes_and_floats_give_the_same(engine: Protected, scenes: list[NDArray[np.uint8]]) -> None:
    for scene in scenes:
        floats = engine(to_float([scene]))
        assert isinstance(floats, list)
        _same(_one(engine(scene)), floats[0])


def test_a_batch_gives_what_its_images_give_alone(
    engine: Protected, scenes: list[NDArray[np.uint8]]
) -> None:
    for threshold in (None, 0.0, 1e30):
        alone = [_one(engine(scene, threshold=threshold)) for scene in scenes]
        together = engine(to_float(scenes), threshold=threshold)
        assert isinstance(together, list)
        assert len(together) == 4
        for a, b in zip(alone, together, strict=True):
            _same(a, b)


def test_a_flag_in_a_batch_leaves_its_neighbours_alone(
    engine: Protected, scenes: list[NDArray[np.uint8]]
) -> None:
    scores = sorted(result.score for result in engine.run(to_float(scenes)))
    between = (scores[1] + scores[2]) / 2
    results = engine.run(to_float(scenes), threshold=between)
    assert sorted(result.flag for result in results) == [False, False, True, True]
    bare = engine.run(to_float(scenes), threshold=1e30)
    for result, plain in zip(results, bare, strict=True):
        if not result.flag:
            assert result.mask.all()
            np.testing.assert_array_equal(result.prediction, plain.prediction)


def test_an_image_of_another_size_is_stretched(engine: Protected) -> None:
    assert _one(engine(draw_scene((150, 200), 0))).mask.shape == SIZE
    with pytest.raises(ImageError, match="too far from the network's input"):
        engine(draw_scene((64, 640), 0))


def _with(value: float) -> NDArray[np.float32]:
    image = np.full((1, 3, *SIZE), 0.5, np.float32)
    image[0, 1, 2, 3] = value
    return image


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 3, *SIZE), np.float64),
        np.zeros((1, 3, *SIZE), np.uint8),
        np.zeros((*SIZE, 3), np.float32),
        np.zeros((4, *SIZE), np.float32),
        np.zeros((1, 3, SIZE[0], SIZE[1] - 1), np.float32),
        np.zeros((1, 4, *SIZE), np.float32),
        np.zeros((0, 3, *SIZE), np.float32),
        np.zeros((*SIZE, 4), np.uint8),
        np.zeros(SIZE, np.uint8),
        _with(np.nan),
        _with(np.inf),
        _with(-np.inf),
        _with(-0.01),
        _with(1.01),
        _with(255),
    ],
    ids=lambda image: f"{image.dtype}-{image.shape}-{image.max() if image.size else 'empty'}",
)
def test_what_is_no_image_is_refused(engine: Protected, image: NDArray[Any]) -> None:
    with pytest.raises(ShapeError):
        engine(image)


@pytest.mark.parametrize("threshold", [-1.0, float("nan")])
def test_what_is_no_threshold_is_refused(engine: Protected, threshold: float) -> None:
    with pytest.raises(UsageError, match="threshold"):
        engine(draw_scene(SIZE, 0), threshold=threshold)


def test_a_mask_that_covers_more_than_allowed_is_not_trusted(
    bundle: Path, engine: Protected, scenes: list[NDArray[np.uint8]]
) -> None:
    plain = _one(engine(scenes[1], threshold=0.0))
    covered = float((~plain.mask).mean())
    assert 0 < covered < 1
    assert plain.trusted
    for share, trusted in ((0.0, False), (covered, True), (covered * 0.999, False)):
        with zmask_export.load(bundle, max_covered=share) as strict:
            result = _one(strict(scenes[1], threshold=0.0))
            assert result.trusted is trusted
            _same(result, plain)
            # Nothing is covered where nothing is flagged.
            assert _one(strict(scenes[1], threshold=1e30)).trusted


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(bundle: Path, share: float) -> None:
    with pytest.raises(UsageError, match="covered share"):
        zmask_export.load(bundle, max_covered=share)


def test_a_changed_byte_is_found_before_the_graph_is_parsed(
    detect_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = link_tree(detect_bundle, tmp_path / "copy")
    data = bytearray((copy / "protected.onnx").read_bytes())
    data[1000] ^= 1
    (copy / "protected.onnx").unlink()
    (copy / "protected.onnx").write_bytes(data)
    parsed: list[bytes] = []
    monkeypatch.setattr(choice, "OnnxRuntimeRunner", lambda model, **_: parsed.append(model))
    with pytest.raises(BundleError, match=r"has a changed file protected\.onnx"):
        zmask_export.load(copy)
    assert parsed == []


def _identical(a: Result, b: Result) -> None:
    assert (a.flag, a.score, a.threshold) == (b.flag, b.score, b.threshold)
    for name, value in a.outputs.items():
        np.testing.assert_array_equal(value, b.outputs[name])


def test_every_form_of_a_batch_gives_the_same_bits(
    engine: Protected, scenes: list[NDArray[np.uint8]]
) -> None:
    expected = engine(to_float(scenes))
    for batch in (scenes, np.stack(scenes), torch.from_numpy(to_float(scenes))):
        for a, b in zip(engine(batch), expected, strict=True):
            _identical(a, b)
    alone = _one(engine(scenes[1]))
    for image in (to_float(scenes[1:2])[0], torch.from_numpy(scenes[1])):
        _identical(_one(engine(image)), alone)
    _identical(engine.run(scenes[1])[0], alone)


def test_an_array_is_bound_where_it_lies(
    engine: Protected, scenes: list[NDArray[np.uint8]]
) -> None:
    if engine.runner.name != "onnxruntime-cpu":
        pytest.skip("the array lies in main memory")
    floats = to_float(scenes)
    there = dlpack.bound(floats.__dlpack__(), "cpu", 0)
    limit = np.array([engine.manifest.threshold], np.float32)
    for array, rows in ((there, floats), (there.rows(1, 3), floats[1:3])):
        got = engine.runner.run({"image": array, "threshold": limit})
        expected = engine.runner.run({"image": rows, "threshold": limit})
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value)
    elsewhere: Any = replace(there, kind="cuda")
    with pytest.raises(ShapeError, match="memory of cuda 0"):
        engine.runner.run({"image": elsewhere, "threshold": limit})


def test_results_are_those_of_the_command(
    engine: Protected, scenes: list[NDArray[np.uint8]], bundle: Path, tmp_path: Path
) -> None:
    # Flags on both sides of the threshold.
    scores = sorted(_one(engine(scene)).score for scene in scenes)
    limit = (scores[1] + scores[2]) / 2
    for index, scene in enumerate(scenes):
        Image.fromarray(scene).save(tmp_path / f"{index}.png")
    paths = [tmp_path / f"{index}.png" for index in range(len(scenes))]
    outcome = zmask("run", bundle, *paths, "--out", tmp_path / "out", "--threshold", limit)
    assert outcome.code == 0, outcome.err
    records = [json.loads(line) for line in outcome.out.splitlines()]
    for record, scene in zip(records, scenes, strict=True):
        result = _one(engine(scene, threshold=limit))
        assert (record["flag"], record["score"]) == (result.flag, result.score)
        assert record["covered"] == (~result.mask).mean()
        files = record["files"]
        np.testing.assert_array_equal(np.asarray(Image.open(files["mask"])) > 0, result.mask)
        painted = colour_prediction(result.prediction, engine.manifest.classes)
        np.testing.assert_array_equal(np.asarray(Image.open(files["prediction"])), painted)
    assert sorted(record["flag"] for record in records) == [False, False, True, True]


def test_threads_share_an_engine(bundle: Path, scenes: list[NDArray[np.uint8]]) -> None:
    with zmask_export.load(bundle, threads=1) as engine:
        expected = [_one(engine(scene)) for scene in scenes]
        with ThreadPoolExecutor(4) as pool:
            for index, result in enumerate(pool.map(engine, scenes * 6)):
                _identical(result, expected[index % len(scenes)])


def test_what_is_closed_stays_closed(detect_bundle: Path) -> None:
    image = draw_scene(SIZE, 0)
    with zmask_export.load(detect_bundle) as engine:
        engine(image)
    for use in (engine, engine.run):
        with pytest.raises(UsageError, match="The engine is closed"):
            use(image)
    with pytest.raises(UsageError, match="closed"):
        engine.runner.run({})
    engine.close()


def test_a_bundle_runs_without_torch(bundle: Path) -> None:
    code = (
        "import sys, numpy, zmask_export\n"
        f"engine = zmask_export.load({str(bundle)!r})\n"
        f"result = engine(numpy.full({(*SIZE, 3)}, 90, numpy.uint8))\n"
        "loaded = {'torch', 'torchvision', 'tensorrt', 'tensorrt_rtx', 'onnx'} & set(sys.modules)\n"
        "print(result.mask.shape, sorted(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ONE_THREAD
    )
    assert done.stdout.strip() == f"{SIZE} []"
    assert done.stderr == ""

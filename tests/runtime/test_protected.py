"""The Python runtime: zmask_export.load and what it returns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import zmask_export
from tests.conftest import ONE_THREAD, SIZE, link_tree
from zmask_export.data.images import to_float
from zmask_export.data.scene import draw_scene
from zmask_export.errors import BundleError, ImageError, ShapeError, UsageError
from zmask_export.runtime import choice
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

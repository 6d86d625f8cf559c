"""Served graphs answer as the bundle's graph does, bit for bit, through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.drawn import SIZE
from zmask_export.artifacts.bundle import read_manifest
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.runner import Arrays
from zmask_export.data.images import to_float
from zmask_export.data.scene import draw_scene
from zmask_export.errors import BundleError
from zmask_export.runtime.choice import ONNX_FILE
from zmask_export.runtime.protected import NEVER
from zmask_export.serve.graph import per_image, with_default

FORMS = (with_default, per_image)


@pytest.fixture(scope="module", params=["bundle", "detect_bundle"])
def graph(request: pytest.FixtureRequest) -> tuple[bytes, float]:
    """A bundle's graph and its threshold."""
    folder: Path = request.getfixturevalue(request.param)
    return (folder / ONNX_FILE).read_bytes(), read_manifest(folder).threshold


def _images(count: int = 2) -> NDArray[np.float32]:
    return to_float([draw_scene(SIZE, seed) for seed in range(count)])


def _assert_equal(got: Arrays, expected: Arrays) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def _column(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)[:, None]


def test_a_threshold_that_is_left_out_is_the_calibrated_one(graph: tuple[bytes, float]) -> None:
    model, threshold = graph
    given = {"image": _images(), "threshold": np.array([threshold], np.float32)}
    expected = OnnxRuntimeRunner(model).run(given)
    served = OnnxRuntimeRunner(with_default(model, threshold))
    _assert_equal(served.run({"image": given["image"]}), expected)
    _assert_equal(served.run(given), expected)


@pytest.mark.parametrize("other", [0.0, NEVER])
def test_a_threshold_that_is_given_counts(graph: tuple[bytes, float], other: float) -> None:
    model, threshold = graph
    given = {"image": _images(), "threshold": np.array([other], np.float32)}
    expected = OnnxRuntimeRunner(model).run(given)
    assert expected["flag"].tolist() == [other < NEVER] * 2
    _assert_equal(OnnxRuntimeRunner(with_default(model, threshold)).run(given), expected)
    column = {"image": given["image"], "threshold": _column(other, other)}
    _assert_equal(OnnxRuntimeRunner(per_image(model, threshold)).run(column), expected)


def test_a_negative_threshold_stands_for_the_calibrated_one(graph: tuple[bytes, float]) -> None:
    model, threshold = graph
    image = _images()
    plain = {"image": image, "threshold": np.array([threshold], np.float32)}
    column = {"image": image, "threshold": _column(-1, threshold)}
    expected = OnnxRuntimeRunner(model).run(plain)
    _assert_equal(OnnxRuntimeRunner(per_image(model, threshold)).run(column), expected)


def test_each_image_of_a_batch_has_its_own_threshold(graph: tuple[bytes, float]) -> None:
    model, threshold = graph
    image = _images(3)
    scores = OnnxRuntimeRunner(model).run(
        {"image": image, "threshold": np.array([NEVER], np.float32)}
    )["score"]
    limits = [0.0, NEVER, float(np.nextafter(scores[2], np.float32(np.inf)))]
    got = OnnxRuntimeRunner(per_image(model, threshold)).run(
        {"image": image, "threshold": _column(*limits)}
    )
    assert got["flag"].tolist() == [True, False, False]
    for row, limit in enumerate(limits):
        alone = OnnxRuntimeRunner(model).run(
            {"image": image, "threshold": np.array([limit], np.float32)}
        )
        for name in ("score", "flag", "mask", "soft_mask"):
            np.testing.assert_array_equal(got[name][row], alone[name][row])


@pytest.mark.parametrize("form", FORMS)
def test_two_runs_give_the_same_file(graph: tuple[bytes, float], form: object) -> None:
    assert callable(form)
    assert form(*graph) == form(*graph)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", [b"", b"no graph"])
def test_another_file_is_refused(form: object, model: bytes) -> None:
    assert callable(form)
    with pytest.raises(BundleError):
        form(model, 0.5)

"""A bundle whose network overflows: what its user sees."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.conftest import Inputs, link_tree, zmask
from zmask_export.backends.runner import DeviceArray
from zmask_export.errors import ShapeError
from zmask_export.pipeline.run import ImageRecord
from zmask_export.runtime.inputs import Prepared
from zmask_export.runtime.protected import load


@pytest.fixture(scope="module")
def loud(detect_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with a z-score that leaves float32, and a manifest that knows of it."""
    copy = link_tree(detect_bundle, tmp_path_factory.mktemp("loud") / "bundle")
    model = onnx.load(copy / "protected.onnx")
    for node in model.graph.node:
        if node.name.startswith("zscore/") and node.op_type == "Mul":
            for value in model.graph.initializer:
                if value.name in node.input:
                    high = np.full_like(numpy_helper.to_array(value), np.inf)
                    value.CopyFrom(numpy_helper.from_array(high, value.name))
    data = model.SerializeToString()
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["protected.onnx"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    del manifest["checksum"]
    for name, content in (
        ("protected.onnx", data),
        ("manifest.json", json.dumps(manifest).encode()),
    ):
        (copy / name).unlink()
        (copy / name).write_bytes(content)
    return copy


def test_a_score_that_is_no_number_is_a_flag(loud: Path, inputs: Inputs) -> None:
    with load(loud, backend="onnxruntime-cpu", threads=1) as engine:
        result = engine(np.asarray(Image.open(inputs.image)))
    assert math.isnan(result.score)
    assert result.flag is True
    assert result.mask.all()


def test_run_writes_json_all_the_same(loud: Path, inputs: Inputs) -> None:
    outcome = zmask("run", loud, inputs.image)
    assert outcome.code == 0, outcome.err
    record = ImageRecord.model_validate(outcome.record)
    assert (record.flag, record.score, record.covered) == (True, None, 0)
    assert "NaN" not in outcome.out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5, -1e-6])
def test_an_image_that_cannot_be_is_refused_before_it_runs(value: float, loud: Path) -> None:
    with load(loud, backend="onnxruntime-cpu", threads=1) as engine:
        image = np.full((3, *engine.manifest.input_size), 0.5, np.float32)
        image[1, 3, 3] = value
        with pytest.raises(ShapeError, match="NaN, infinity or values outside"):
            engine(image)
        image[1, 3, 3] = np.finfo(np.float32).smallest_subnormal
        assert engine(image).flag


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_read_where_it_lies_is_refused_by_its_score(
    value: float, detect_bundle: Path
) -> None:
    with load(detect_bundle, backend="onnxruntime-cpu", threads=1) as engine:
        images = np.full((2, 3, *engine.manifest.input_size), 0.5, np.float32)
        # As on a GPU: an address, of whose values nothing is known beforehand.
        there = DeviceArray(images.ctypes.data, images.shape, "cpu", 0, images)
        assert len(engine._run(Prepared(there, single=False), None)) == 2
        images[1, 2, -1, -1] = value
        with pytest.raises(ShapeError, match="a score that is no number"):
            engine._run(Prepared(there, single=False), None)

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from zmask_export.errors import BackendError
from zmask_export.profiling.memory import growth

SIDE = 512
MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read on Linux")


def _graph(path: Path, weight_mib: int) -> Path:
    """image -> the image twice over, plus a weight of so many MiB."""
    rows = weight_mib * MIB // (4 * SIDE)
    weight = np.ones((1, rows, SIDE), np.float32)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    outputs = [
        helper.make_tensor_value_info("grown", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
    ]
    nodes = [
        helper.make_node("Tile", ["image", "times"], ["grown"]),
        helper.make_node("ReduceSum", ["image", "axes"], ["all"], keepdims=0),
        helper.make_node("Mul", ["weight", "all"], ["sum"]),
    ]
    weights = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([1, 1, 8, 8], np.int64), "times"),
        numpy_helper.from_array(np.array([0, 1, 2, 3], np.int64), "axes"),
    ]
    graph = helper.make_graph(nodes, "g", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_count_when_loaded_and_activations_when_run(tmp_path: Path) -> None:
    model = _graph(tmp_path / "net.onnx", weight_mib=64)
    found = growth(model, (SIDE, SIDE), batch=1, threads=1, threshold=None)
    assert found is not None
    # The file and its parsed form may both still be resident.
    assert 64 * MIB <= found.loaded < 220 * MIB
    # Tiling by 64 gives 192 MiB.
    assert found.ran - found.loaded >= 190 * MIB


def test_a_session_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="code 1"):
        growth(tmp_path / "net.onnx", (4, 4), batch=1, threads=1, threshold=None)

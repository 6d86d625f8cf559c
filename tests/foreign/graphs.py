"""Small ONNX files, as exporters of several ages write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

CLASSES = 5
TAPS = ("--input-size", "96x128", "--shallow", "stem", "--deep", "mid")
"""Options for a network whose taps have these names."""
FREE = ("N", 3, "H", "W")


def network(
    *,
    opset: int = 12,
    dims: Sequence[int | str] = FREE,
    dtype: int = TensorProto.FLOAT,
    extra: Sequence[onnx.NodeProto] = (),
    more: Sequence[onnx.TensorProto] = (),
    outputs: Sequence[str] = ("scores",),
    inputs: Sequence[onnx.ValueInfoProto] = (),
    function: onnx.FunctionProto | None = None,
    seed: int = 0,
) -> ModelProto:
    """Two strided convolutions with ReLUs, tensors ``stem`` and ``mid``, and a head, ``scores``.

    Args:
        opset: of the standard domain.
        dims, dtype: of the input ``x``.
        extra: nodes behind the head.
        more: their weights.
        outputs: names of the outputs.
        inputs: inputs besides the image.
        function: that ``extra`` calls.
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "w0": rng.normal(0, 0.3, (8, 3, 3, 3)), "b0": rng.normal(0, 0.1, 8),
        "w1": rng.normal(0, 0.2, (16, 8, 3, 3)), "w2": rng.normal(0, 0.3, (CLASSES, 16, 1, 1)),
    }  # fmt: skip
    stored = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    stored += more
    strided = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["conv0"], **strided),
        helper.make_node("Relu", ["conv0"], ["stem"]),
        helper.make_node("Conv", ["stem", "w1"], ["conv1"], **strided),
        helper.make_node("Relu", ["conv1"], ["mid"]),
        helper.make_node("Conv", ["mid", "w2"], ["scores"], kernel_shape=[1, 1]),
        *extra,
    ]
    image = helper.make_tensor_value_info("x", dtype, dims)
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in stored]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "main", [image, *inputs, *listed], results, stored)
    graph = onnx.GraphProto.FromString(graph.SerializeToString())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    if function is not None:
        model.ir_version = 8  # the first that has functions
        model.functions.append(function)
        model.opset_import.append(helper.make_opsetid(function.domain, 1))
    typed = onnx.shape_inference.infer_shapes(model)
    return typed if all(o.type.HasField("tensor_type") for o in typed.graph.output) else model


def save(model: ModelProto, path: Path) -> Path:
    """Write a model into a file."""
    path.write_bytes(model.SerializeToString())
    return path


def with_weights_in(model: ModelProto, path: Path, location: str) -> Path:
    """Write a model whose first weight lies in another file, or claims to."""
    copy = ModelProto()
    copy.CopyFrom(model)
    tensor = copy.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(len(data)))
    if location == "weights.bin":
        (path.parent / location).write_bytes(data)
    return save(copy, path)

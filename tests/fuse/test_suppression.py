"""The suppression in plain operators, run by ONNX Runtime, against torchvision's own."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_ir.passes.common import NameFixPass, TopologicalSortPass

from zmask_export.errors import CompileError
from zmask_export.export.suppression import DOMAIN, GREEDY_KEEP
from zmask_export.fuse import suppression
from zmask_export.models.detection.suppression import greedy_keep

Boxes = NDArray[np.float32]
IOU = 0.5


def _model(groups: int | str, count: int) -> ir.Model:
    shapes = {"boxes": ["N", groups, count, 4], "valid": ["N", groups, count]}
    shapes["labels"] = shapes["valid"]
    types = {"boxes": ir.DataType.FLOAT, "valid": ir.DataType.BOOL, "labels": ir.DataType.INT64}
    inputs = [
        ir.Value(name=name, type=ir.TensorType(types[name]), shape=ir.Shape(shapes[name]))
        for name in shapes
    ]
    node = ir.node(GREEDY_KEEP, inputs, {"iou": IOU}, domain=DOMAIN)
    keep = node.outputs[0]
    keep.name, keep.type = "keep", ir.TensorType(ir.DataType.BOOL)
    keep.shape = ir.Shape(shapes["valid"])
    graph = ir.Graph(inputs, [keep], nodes=[node], opset_imports={"": 20, DOMAIN: 1}, name="g")
    return ir.Model(graph, ir_version=10)


@functools.cache
def _session(groups: int, count: int, block: int) -> ort.InferenceSession:
    model = _model(groups, count)
    before, suppression._BLOCK = suppression._BLOCK, block
    try:
        suppression.lower_suppression(model)
    finally:
        suppression._BLOCK = before
    for transform in (TopologicalSortPass(), NameFixPass()):
        model = transform(model).model
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _graph(
    boxes: Boxes, valid: NDArray[np.bool_], labels: NDArray[np.int64], block: int = 1024
) -> NDArray[np.bool_]:
    session = _session(boxes.shape[1], boxes.shape[2], block)
    return session.run(None, {"boxes": boxes, "valid": valid, "labels": labels})[0]


def _eager(boxes: Boxes, valid: NDArray[np.bool_], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return greedy_keep(*map(torch.from_numpy, (boxes, valid, labels)), IOU).numpy()


def _row(*boxes: tuple[float, float, float, float]) -> Boxes:
    return np.array(boxes, np.float32)[None, None]


# Corners from a small lattice: identical boxes, ties, boxes without area and exact overlaps are common.
_CORNER = st.integers(-2, 6)
_BOX = st.tuples(_CORNER, _CORNER, st.integers(0, 5), st.integers(0, 5)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_it_equals_torchvision(data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([1, 2, 7, 12]))
    images, groups = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    block = data.draw(st.sampled_from([4, 1024]))
    rows = images * groups * count
    scale = data.draw(st.sampled_from([1.0, 3.7, 1e-3, 500.0]))
    boxes = np.array(data.draw(st.lists(_BOX, min_size=rows, max_size=rows)), np.float32) * scale
    flags = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    shape = (images, groups, count)
    boxes = boxes.astype(np.float32).reshape(*shape, 4)
    valid = np.array(flags).reshape(shape)
    kinds = np.array(labels, np.int64).reshape(shape)
    np.testing.assert_array_equal(_graph(boxes, valid, kinds, block), _eager(boxes, valid, kinds))


def test_the_eager_form_is_torchvisions_batched_nms() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 15, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 30, (40, 2))], 1).astype(np.float32)
    labels = rng.integers(0, 3, 40)
    kept = torchvision.ops.batched_nms(
        torch.from_numpy(boxes), -torch.arange(40.0), torch.from_numpy(labels), IOU
    )
    expected = np.zeros(40, bool)
    expected[kept.numpy()] = True
    found = _eager(boxes[None, None], np.ones((1, 1, 40), bool), labels[None, None])
    np.testing.assert_array_equal(found[0, 0], expected)
    assert 0 < expected.sum() < 40


@pytest.mark.parametrize("block", [3, 1024])
@pytest.mark.parametrize("count", [2, 9, 30])
def test_a_chain_of_suppressions_is_followed_to_its_end(count: int, block: int) -> None:
    # Each box overlaps the next one only: every second one goes.
    left = np.arange(count) * 3.0
    boxes = np.stack([left, np.zeros(count), left + 10, np.full(count, 10.0)], axis=1)
    ones = np.ones((1, 1, count), bool)
    keep = _graph(
        boxes.astype(np.float32)[None, None], ones, np.zeros((1, 1, count), np.int64), block
    )
    np.testing.assert_array_equal(keep[0, 0], np.arange(count) % 2 == 0)


def test_of_identical_boxes_the_first_stays() -> None:
    boxes = _row(*[(0, 0, 4, 4)] * 5)
    labels = np.array([[[0, 0, 1, 0, 1]]])
    keep = _graph(boxes, np.ones((1, 1, 5), bool), labels)
    np.testing.assert_array_equal(keep[0, 0], [True, False, True, False, False])


def test_boxes_without_area_never_suppress_each_other() -> None:
    boxes = _row((1, 1, 1, 1), (1, 1, 1, 1), (0, 0, 0, 5), (0, 0, 0, 5))
    keep = _graph(boxes, np.ones((1, 1, 4), bool), np.zeros((1, 1, 4), np.int64))
    assert keep.all()


def test_what_does_not_count_neither_stays_nor_suppresses() -> None:
    boxes = _row((0, 0, 4, 4), (0, 0, 4, 4), (9, 9, 12, 12))
    keep = _graph(boxes, np.array([[[False, True, False]]]), np.zeros((1, 1, 3), np.int64))
    np.testing.assert_array_equal(keep[0, 0], [False, True, False])


def test_an_overlap_of_exactly_the_threshold_is_none() -> None:
    boxes = _row((0, 0, 4, 4), (0, 0, 2, 4), (0, 0, 3, 4))
    keep = _graph(boxes, np.ones((1, 1, 3), bool), np.zeros((1, 1, 3), np.int64))
    np.testing.assert_array_equal(keep[0, 0], [True, True, False])


def test_an_image_does_not_touch_its_neighbour() -> None:
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 20, (3, 2, 9, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 15, corners.shape)], -1)
    boxes = boxes.astype(np.float32)
    valid = rng.random((3, 2, 9)) > 0.2
    labels = rng.integers(0, 2, (3, 2, 9))
    together = _graph(boxes, valid, labels)
    for index in range(3):
        pick = slice(index, index + 1)
        np.testing.assert_array_equal(
            together[pick], _graph(boxes[pick], valid[pick], labels[pick])
        )


def test_boxes_of_unknown_number_are_refused() -> None:
    with pytest.raises(CompileError, match="no known shape"):
        suppression.lower_suppression(_model("G", 4))

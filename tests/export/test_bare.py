from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.small import PREPROCESS, SIZE, as_float, exported, tiny_bare, tiny_images
from tests.small import to_bytes as file_of
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.errors import CompileError, UsageError
from zmask_export.export.bare import OPSET, export_bare
from zmask_export.models.bare import BareNetwork

IMAGES = as_float(tiny_images())


def check_equal(bare: BareNetwork, model: bytes, images: np.ndarray) -> None:
    """The graph gives what the module gives, outputs and taps."""
    got = OnnxRuntimeRunner(model).run({"image": images})
    with torch.inference_mode():
        outputs, taps = bare(torch.from_numpy(images))
    expected = outputs | {f"tap.{tap}": value for tap, value in taps.items()}
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_dynamic_graph_equals_the_module(count: int) -> None:
    check_equal(tiny_bare(), exported(None), IMAGES[:count])


@pytest.mark.parametrize("batch", [1, 4])
def test_fixed_graph_equals_the_module(batch: int) -> None:
    model = onnx.load_from_string(exported(batch))
    shape = model.graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [batch, 3, *SIZE]
    check_equal(tiny_bare(), exported(batch), IMAGES[:batch])


def test_nodes_are_called_after_modules_and_operators() -> None:
    graph = onnx.load_from_string(exported(None)).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert all(name.startswith("network/") for name in names)
    assert {"network/tip/Conv", "network/head/Conv", "network/mid.1/Relu"} <= set(names)
    assert "network/tip.weight" in {value.name for value in graph.initializer}


def test_batch_norm_is_merged_into_its_convolution() -> None:
    operators = {node.op_type for node in onnx.load_from_string(exported(None)).graph.node}
    assert "Conv" in operators
    assert "BatchNormalization" not in operators


def test_graph_passes_the_checker_at_the_stated_opset() -> None:
    model = onnx.load_from_string(exported(None))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [("", OPSET)]


@pytest.mark.parametrize("batch", [None, 1])
def test_graph_holds_no_trace_of_the_machine(batch: int | None) -> None:
    data = exported(batch)
    root = Path(__file__).parents[2]
    for trace in (bytes(root), bytes(Path(torch.__file__).parent), b"stack_trace", b'File "'):
        assert trace not in data


def test_two_exports_are_the_same_bytes() -> None:
    assert file_of(export_bare(tiny_bare(), SIZE)) == exported(None)


class Overlapping(nn.Module):
    """A tap that is the output too, and one that an operator later changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.first(x)))


def test_tap_on_the_output_and_tap_changed_in_place() -> None:
    torch.manual_seed(0)
    bare = BareNetwork(Overlapping(), PREPROCESS, {"first": "first", "last": "last"})
    check_equal(bare, file_of(export_bare(bare, SIZE)), IMAGES[:2])


class Branching(nn.Module):
    """Decides by the values of its input, which no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_network_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(CompileError, match="cannot be exported to ONNX"):
        export_bare(BareNetwork(Branching(), PREPROCESS, {}), SIZE)


def test_unknown_tap_is_refused_with_near_names() -> None:
    bare = BareNetwork(tiny_bare().network, PREPROCESS, {"mid": "midd"})
    with pytest.raises(UsageError, match="no layer called 'midd'") as caught:
        export_bare(bare, SIZE)
    assert "mid" in caught.value.fix

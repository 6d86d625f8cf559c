"""The bare graph of an ONNX file against the file itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.foreign import graphs
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.errors import NetworkError
from zmask_export.export.bare import OPSET, export_bare
from zmask_export.foreign.onnx_file import read_onnx
from zmask_export.foreign.onnx_network import OnnxNetwork
from zmask_export.foreign.preset import derived
from zmask_export.spec import PREPROCESS, Preprocess, Preset

SIZE = (24, 40)
PATHS = {"stem": "stem", "mid": "mid"}


def bare_of(
    path: Path, preprocess: Preprocess = PREPROCESS["unit"], batch: int | None = None
) -> tuple[OnnxNetwork, bytes]:
    """A file as a network, and its bare graph."""
    file = read_onnx(path)
    network = OnnxNetwork(file, preprocess, PATHS, {"y": file.outputs[0]}, file.batch)
    model = export_bare(network, SIZE, batch)
    return network, ir.serde.serialize_model(model).SerializeToString()


def check_equal(path: Path, preprocess: Preprocess = PREPROCESS["unit"], count: int = 2) -> None:
    """The graph on an image equals the file on the normalised image."""
    _, model = bare_of(path, preprocess)
    image = np.random.default_rng(1).random((count, 3, *SIZE), np.float32)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (preprocess.mean, preprocess.std))
    shown = ((image[:, ::-1] if preprocess.bgr else image) - mean) / std
    file = read_onnx(path)
    expected = OnnxRuntimeRunner(file.with_outputs(("stem", "mid"))).run({"x": shown})
    got = OnnxRuntimeRunner(model).run({"image": image})
    assert list(got) == ["y", "tap.stem", "tap.mid"]
    for name, source in (("y", file.outputs[0]), ("tap.stem", "stem"), ("tap.mid", "mid")):
        atol = 1e-5 * np.abs(expected[source]).max()
        np.testing.assert_allclose(got[name], expected[source], rtol=1e-4, atol=atol, err_msg=name)


@given(
    mean=st.tuples(*[st.sampled_from([0.0, 0.3, 0.5])] * 3),
    std=st.tuples(*[st.sampled_from([1.0, 0.25, 1 / 255])] * 3),
    bgr=st.booleans(),
    count=st.integers(1, 3),
)
@settings(max_examples=6, deadline=None)
def test_the_normalisation_stands_in_front(
    net: Path, mean: tuple[float, ...], std: tuple[float, ...], bgr: bool, count: int
) -> None:
    check_equal(net, Preprocess(mean=mean, std=std, bgr=bgr), count)


def _upsampled(opset: int) -> onnx.ModelProto:
    """The head enlarged, as exporters of that age did it."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    roi = numpy_helper.from_array(np.zeros(0, np.float32), "roi")
    kind = "Upsample" if opset < 10 else "Resize"
    inputs = ["scores", "scales"] if opset < 11 else ["scores", "roi", "scales"]
    more = [helper.make_node(kind, inputs, ["y"], mode="nearest")]
    return graphs.network(opset=opset, extra=more, more=[scales, roi], outputs=["y"])


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 17, 20, 21])
def test_any_opset_is_brought_to_ours(opset: int, tmp_path: Path) -> None:
    path = graphs.save(_upsampled(opset), tmp_path / "net.onnx")
    check_equal(path)
    imports = onnx.load_from_string(bare_of(path)[1]).opset_import
    assert [(o.domain, o.version) for o in imports] == [("", OPSET)]


def test_an_opset_that_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    model = graphs.network(opset=20)
    model.opset_import[0].version = 99
    path = graphs.save(model, tmp_path / "net.onnx")
    with pytest.raises(NetworkError, match=r"cannot be (run|brought)"):
        bare_of(path)


def test_weights_beside_the_file_are_taken(tmp_path: Path) -> None:
    model = graphs.network()
    inside = graphs.save(model, tmp_path / "inside.onnx")
    beside = graphs.with_weights_in(model, tmp_path / "beside.onnx", "weights.bin")
    assert bare_of(inside)[1] == bare_of(beside)[1]
    first = read_onnx(beside).sha256
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert read_onnx(beside).sha256 != first


def test_constants_and_functions_are_folded_and_inlined(tmp_path: Path) -> None:
    """Weights as Constant nodes, shapes computed in the graph, a function of the file's own."""
    head = numpy_helper.from_array(np.ones((2, graphs.CLASSES, 1, 1), np.float32))
    extra = [
        helper.make_node("Constant", [], ["w3"], value=head),
        helper.make_node("Conv", ["scores", "w3"], ["two"], kernel_shape=[1, 1]),
        helper.make_node("Shape", ["two"], ["shape"]),
        helper.make_node("Reshape", ["two", "shape"], ["same"]),
        helper.make_node("twice", ["same"], ["y"], domain="own"),
    ]
    twice = helper.make_function(
        "own", "twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = graphs.network(opset=17, extra=extra, outputs=["y"], function=twice)
    path = graphs.save(model, tmp_path / "net.onnx")
    check_equal(path)
    graph = onnx.load_from_string(bare_of(path)[1])
    assert len(graph.functions) == 0
    assert {node.domain for node in graph.graph.node} == {""}
    assert "Constant" not in {node.op_type for node in graph.graph.node}


def test_a_fixed_batch_is_declared(tmp_path: Path) -> None:
    path = graphs.save(graphs.network(dims=(2, 3, *SIZE)), tmp_path / "net.onnx")
    _, model = bare_of(path, batch=2)
    (image,) = onnx.load_from_string(model).graph.input
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [2, 3, *SIZE]


def test_no_name_of_the_file_is_in_the_way(tmp_path: Path) -> None:
    """Tensors that are called as ours are do not collide with them."""
    extra = [
        helper.make_node("Relu", ["scores"], ["image"]),
        helper.make_node("Relu", ["image"], ["threshold"]),
        helper.make_node("Neg", ["threshold"], ["tap.stem"]),
    ]
    path = graphs.save(graphs.network(extra=extra, outputs=["tap.stem"]), tmp_path / "net.onnx")
    check_equal(path)


@given(h=st.integers(1, 4096), w=st.integers(1, 4096))
def test_derived_settings_are_a_preset_of_any_size(h: int, w: int) -> None:
    preset = Preset(**derived((h, w)))
    defense = preset.defense(("a",), ("b",))  # refuses kernels larger than the grid
    assert max(defense.grid) <= 200
    assert defense.grid[0] <= max(1, h)
    assert defense.grid[1] <= max(1, w)


def test_derived_settings_are_the_demo_networks_own() -> None:
    found = derived((360, 480))
    assert found["grid"] == (150, 200)
    assert found["shallow_kernels"] == ((16, 21), (8, 11), (4, 5))
    assert found["deep_kernels"] == ((8, 11), (4, 5), (2, 3))
    assert found["corners"] == 24

"""ONNX files of the user's own that cannot be used: one sentence what, one how to fix it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import Inputs, Outcome, assert_refused, contents, zmask
from tests.foreign import graphs

SIZE = ("--input-size", "32x48", "--preprocess", "unit")
TAPS = ("--shallow", "stem", "--deep", "mid")


def plan(path: Path, *options: object) -> Outcome:
    return zmask("plan", "--onnx", path, *(options or (*SIZE, *TAPS)))


FILES = {
    "an image of bytes": ({"dtype": TensorProto.UINT8}, "as uint8 ?x3x?x?"),
    "channels last": ({"dims": ("N", 32, 48, 3)}, "as float ?x32x48x3", "Transpose"),
    "one channel": ({"dims": ("N", 1, 32, 48)}, "as float ?x1x32x48"),
    "a vector": ({"dims": ("N", 3)}, "as float ?x3"),
    "two inputs": (
        {"inputs": [helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1])]},
        "2 inputs (x, scale)",
    ),
    "an unknown operator": (
        {"extra": [helper.make_node("Nothing", ["scores"], ["y"])], "outputs": ["y"]},
        "cannot be run", "Nothing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_graph_that_takes_no_image(case: str, tmp_path: Path) -> None:
    changes, *words = FILES[case]
    path = graphs.save(graphs.network(**changes), tmp_path / "net.onnx")
    assert_refused(plan(path), 4, *words)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (None, "cannot be read"),
        (b"", "holds no graph"),
        (b"no onnx at all", "cut short or no ONNX"),
        (graphs.network().SerializeToString()[:-400], "cut short or no ONNX"),
    ],
    ids=["missing", "empty", "foreign", "cut short"],
)
def test_a_file_that_is_no_onnx(data: bytes | None, word: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    if data is not None:
        path.write_bytes(data)
    assert_refused(plan(path), 4, word)


@pytest.mark.parametrize("location", ["../weights.bin", "ABSOLUTE", "link.bin", "", "."])
def test_weights_outside_the_folder_are_not_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    secret = tmp_path / "weights.bin"
    secret.write_bytes(bytes(4096))
    (folder / "link.bin").symlink_to(secret)
    location = str(secret) if location == "ABSOLUTE" else location
    path = graphs.with_weights_in(graphs.network(), folder / "net.onnx", location)
    assert_refused(plan(path), 4, "keeps weights in", "no file in its folder")


def test_weights_that_are_cut_short(tmp_path: Path) -> None:
    path = graphs.with_weights_in(graphs.network(), tmp_path / "net.onnx", "weights.bin")
    os.truncate(tmp_path / "weights.bin", 16)
    assert_refused(plan(path), 4)


OPTIONS = {
    "no taps": (SIZE, 2, "taps of this network are not known", "stem, mid"),
    "a near name": (
        (*SIZE, "--shallow", "sten", "--deep", "mid"), 2,
        "no tensor called 'sten'", "Near names: stem", "One a resolution: stem, mid.",
    ),
    "a weight": ((*SIZE, "--shallow", "w0", "--deep", "mid"), 2, "no tensor called 'w0'"),
    "the image": ((*SIZE, "--shallow", "x", "--deep", "mid"), 2, "no tensor called 'x'"),
    "no size": (("--preprocess", "unit", *TAPS), 2, "size of the input is not known"),
    "no normalisation": ((*SIZE[:2], *TAPS), 2, "does not say how its image is normalised"),
    "no such output": ((*SIZE, *TAPS, "--outputs", "a=b"), 2, "no output 'b'", "scores"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_make_no_sense(case: str, net: Path) -> None:
    options, code, *words = OPTIONS[case]
    assert_refused(plan(net, *options), code, *words)


def test_a_tap_that_is_no_map(tmp_path: Path) -> None:
    flat = helper.make_node("Flatten", ["mid"], ["flat"])
    path = graphs.save(graphs.network(extra=[flat]), tmp_path / "net.onnx")
    outcome = plan(path, *SIZE, "--shallow", "flat", "--deep", "mid")
    assert_refused(outcome, 4, "'flat' gives float32 (2, 1536), not a map")


def test_a_tap_of_integers(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["mid"], ["whole"], to=TensorProto.INT32)
    path = graphs.save(graphs.network(extra=[cast]), tmp_path / "net.onnx")
    outcome = plan(path, *SIZE, "--shallow", "whole", "--deep", "mid")
    assert_refused(outcome, 4, "'whole' gives int32 (2, 16, 8, 12), not a map")
    assert "whole" not in plan(path, *SIZE).err  # not proposed either


def test_another_size_than_the_file_fixes(tmp_path: Path) -> None:
    path = graphs.save(graphs.network(dims=("N", 3, 32, 48)), tmp_path / "net.onnx")
    outcome = plan(path, "--input-size", "32x64", "--preprocess", "unit", *TAPS)
    assert_refused(outcome, 2, "images of width 48, not 64")


def build(path: Path, inputs: Inputs, out: Path, *options: object) -> Outcome:
    return zmask(
        "build", "--onnx", path, "--input-size", "96x128", "--preprocess", "unit", *TAPS,
        "--images", inputs.images, "--patch", inputs.patch, "--target", "onnx", "--out", out, *options,
    )  # fmt: skip


def _branch(name: str) -> object:
    node = helper.make_node("Identity", ["scores"], [f"{name}_out"])
    value = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [value])


@pytest.mark.parametrize(
    ("opset", "word"), [(12, "opset 12 and control flow"), (20, "control flow: the If")]
)
def test_control_flow_is_refused(opset: int, word: str, inputs: Inputs, out: Path) -> None:
    extra = [
        helper.make_node("ReduceMax", ["scores"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "level"], ["high"]),
        helper.make_node(
            "If", ["high"], ["y"], then_branch=_branch("then"), else_branch=_branch("otherwise")
        ),
    ]
    level = numpy_helper.from_array(np.array(0.5, np.float32), "level")
    model = graphs.network(opset=opset, extra=extra, more=[level], outputs=["y"])
    path = graphs.save(model, out.parent / "net.onnx")
    assert_refused(build(path, inputs, out), 4, word)
    assert contents(out.parent) == ["net.onnx"]


def test_another_batch_than_the_file_fixes(inputs: Inputs, out: Path) -> None:
    path = graphs.save(graphs.network(dims=(2, 3, 96, 128)), out.parent / "net.onnx")
    assert_refused(build(path, inputs, out, "--batch", 4), 2, "takes 2 images at a time, not 4")


def test_an_onnx_file_is_not_crafted_against(net: Path, inputs: Inputs, out: Path) -> None:
    outcome = zmask(
        "craft", "--onnx", net, "--input-size", "96x128", "--preprocess", "unit", *TAPS,
        "--data", inputs.camvid, "--out", out,
    )  # fmt: skip
    assert_refused(outcome, 2, "cannot be differentiated", "--patch")


def test_taps_of_an_onnx_file_are_not_selected(net: Path, inputs: Inputs, out: Path) -> None:
    outcome = zmask(
        "calibrate", "--onnx", net, "--input-size", "96x128", "--preprocess", "unit", *TAPS,
        "--images", inputs.images, "--patch", inputs.patch, "--select-taps", "--out", out,
    )  # fmt: skip
    assert_refused(outcome, 2, "--candidates")

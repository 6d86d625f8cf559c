"""Compiled engines have the precision that they were asked for, or there is none."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest

from tests.small import (
    as_float,
    exported,
    fresh,
    random_calibration,
    tiny_bare,
    tiny_defense,
    tiny_images,
)
from zmask_export.backends import branches, tensorrt
from zmask_export.backends.branches import weights_beside
from zmask_export.backends.compiler import compiled_convolutions
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.tensorrt import CompiledEngine, compile_engine, require_precision
from zmask_export.errors import CompileError
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.precision.lower import lower
from zmask_export.spec import Policy, Precision

LOW: tuple[Precision, ...] = ("fp16", "bf16", "int8")

compiler = pytest.mark.skipif(
    tensorrt.available("tensorrt-rtx") is not None, reason="tensorrt-rtx is not on this platform"
)


@functools.cache
def fused(precision: Precision, policy: Policy = Policy.GATED) -> bytes:
    images = [image[None] for image in as_float(tiny_images())]
    model = lower(fresh(exported(1)), precision, images)
    calibration = random_calibration(tiny_bare(), tiny_defense())
    return fuse(model, calibration, FuseOptions(policy)).to_bytes()


def compiled(model: bytes, precision: Precision) -> CompiledEngine:
    return compile_engine(model, "tensorrt-rtx", batch=None, precision=precision)


@compiler
@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("precision", LOW)
def test_every_convolution_of_every_branch_is_low(precision: Precision, policy: Policy) -> None:
    engine = compiled(fused(precision, policy), precision)
    # With the policy mask nobody reads what the first pass predicts. What reads the image stays float32.
    count, first = {Policy.DETECT: (4, 1), Policy.MASK: (7, 2), Policy.GATED: (8, 2)}[policy]
    assert engine.convolutions == {precision: count - first, "fp32": first}
    assert engine.compiled == engine.convolutions
    assert not engine.tf32


@compiler
def test_float32_is_float32_and_tf32_is_tf32() -> None:
    model = fused("fp32")
    full, fast = compiled(model, "fp32"), compiled(model, "tf32")
    assert (full.tf32, fast.tf32) == (False, True)
    assert full.convolutions == fast.convolutions == {"fp32": 8}
    assert full.compiled == fast.compiled == {"fp32": 8}


@compiler
@pytest.mark.parametrize("asked", LOW)
def test_a_graph_that_was_not_lowered_gives_no_engine(asked: Precision) -> None:
    with pytest.raises(CompileError, match=f"asked for in {asked}") as caught:
        compiled(fused("fp32"), asked)
    assert "8 of the graph's 8 convolutions" in caught.value.what
    assert caught.value.exit_code == 6


@compiler
@pytest.mark.parametrize("made", LOW)
def test_a_lowered_graph_is_no_float32(made: Precision) -> None:
    with pytest.raises(CompileError):
        compiled(fused(made), "fp32")


def made(**changes: object) -> CompiledEngine:
    """An engine of float16 with one convolution of float32, and what else the compiler may say of it."""
    said: dict[str, object] = {
        "flavour": "tensorrt-rtx", "version": "1", "data": b"", "capabilities": (),
        "activation_bytes": 1, "weight_bytes": 1, "tf32": False,
        "convolutions": {"fp16": 7, "fp32": 1}, "compiled": {"fp16": 6, "fp32": 1},
    }  # fmt: skip
    return CompiledEngine(**(said | changes))  # type: ignore[arg-type]


def test_what_stays_float32_by_its_name_is_allowed() -> None:
    require_precision(made(), "fp16", kept=1, listed=True, graph_bytes=1)


def test_an_engine_may_have_no_convolution_but_not_no_list_of_layers() -> None:
    engine = made(compiled={})
    require_precision(engine, "fp16", kept=1, listed=True, graph_bytes=1)
    with pytest.raises(CompileError, match="does not say what its layers compute in"):
        require_precision(engine, "fp16", kept=1, listed=False, graph_bytes=1)


@pytest.mark.parametrize(
    ("changes", "asked", "word"),
    [
        ({"compiled": {"fp32": 7}}, "fp16", "6 of the engine's 7 convolutions"),
        ({"compiled": {"fp16": 5, "fp16*fp32": 1, "fp32": 1}}, "fp16", "1 of the engine's 7"),
        ({"compiled": {"bf16": 6, "fp32": 1}}, "fp16", "6 of the engine's 7"),
        ({"compiled": {"fp16": 5, "fp32": 2}}, "fp16", "1 of the engine's 7"),
        ({"convolutions": {"fp16": 6, "fp32": 2}}, "fp16", "1 of the graph's 8"),
        ({}, "int8", "7 of the graph's 8"),
        ({}, "fp32", "7 of the graph's 8"),
        ({"tf32": True}, "fp16", "has TF32 on"),
        ({"weight_bytes": 1 << 30}, "fp16", "bytes of weights"),
    ],
)
def test_an_engine_of_another_precision_is_refused(
    changes: dict[str, object], asked: Precision, word: str
) -> None:
    with pytest.raises(CompileError, match=word) as caught:
        require_precision(made(**changes), asked, kept=1, listed=True, graph_bytes=1)
    assert f"asked for in {asked}" in caught.value.what


def listed(kind: str, name: str, read: str, weights: str) -> str:
    """A layer as the compiler lists it, shortened."""

    def tensor(datatype: str, dimensions: str = "8,3,3,3") -> str:
        return f"{{ Name: t, Dimensions: [{dimensions}], Strides: [8,1], Datatype: {datatype}, Format: x }}"

    scale = tensor("Float", "1,8,1,1")
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {tensor(read)}], Constants: [ {scale}, "
        f"{tensor(weights)}, {scale}], Outputs: [ {tensor('Float')}], TacticName: , Metadata: "
    )


def test_convolutions_are_told_from_what_else_an_engine_computes() -> None:
    lines = [
        "Layers:",
        listed("correlation", "network/a/Conv_myl0_1", "Half", "Half"),
        listed("correlation", "$$myelin$$else^network/b/Conv_myl0_2", "Half", "Float"),
        listed("runtime_fusion", "__myl_CorrCastRelu_myl0_3", "Float", "Float"),
        listed("runtime_fusion", "__myl_SumMax_myl0_4", "Float", "Float"),
        listed("gemm", "cascade/a/MatMul_myl0_5", "Float", "Float"),
        listed("correlation", "network/c/Conv_myl0_6", "Int8", "Int8"),
        "Name: x, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: ",
    ]
    counts = compiled_convolutions("\n".join(lines))
    assert counts == {"fp16": 1, "fp16*fp32": 1, "fp32": 1, "int8": 1}


@compiler
def test_an_engine_with_widened_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "SLACK", 0)
    monkeypatch.setattr(tensorrt, "MOST_GROWTH", 0.01)
    with pytest.raises(CompileError, match="bytes of weights"):
        compiled(fused("fp16"), "fp16")


@compiler
@pytest.mark.parametrize("precision", LOW)
def test_two_builds_give_the_same_bytes(precision: Precision) -> None:
    model = fused(precision)
    assert compiled(model, precision).data == compiled(model, precision).data


@compiler
def test_the_compiler_takes_no_int8_weights_from_outside_a_branch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the copies are for; where it starts to take them, they may go.
    monkeypatch.setattr(branches, "weights_beside", lambda model: model)
    with pytest.raises(CompileError):
        compiled(fused("int8"), "int8")


def test_weights_stand_beside_their_products_and_the_graph_computes_the_same() -> None:
    model = fused("int8")
    beside = weights_beside(model)
    onnx.checker.check_model(beside, full_check=True)
    (gate,) = (n for n in onnx.load_model_from_string(beside).graph.node if n.op_type == "If")
    first = {"network/stem.0/Conv/float32", "second_pass/stem.0/Conv/float32"}
    for branch in gate.attribute:
        made = {name: node for node in branch.g.node for name in node.output}
        for node in branch.g.node:
            if node.op_type == "Conv" and node.name not in first:
                assert [made[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
    inputs = {"image": as_float(tiny_images())[1:2], "threshold": np.zeros(1, np.float32)}
    one, other = (OnnxRuntimeRunner(m, threads=1).run(inputs) for m in (model, beside))
    assert one["flag"].all()
    for name, value in one.items():
        # The runner lays out other kernels where weights are a branch's own, and sums in their order.
        np.testing.assert_allclose(other[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


def test_a_graph_without_int8_is_left_alone() -> None:
    before = onnx.load_model_from_string(fused("fp16"))
    after = onnx.load_model_from_string(weights_beside(fused("fp16")))
    assert [n.name for n in after.graph.node] == [n.name for n in before.graph.node]
    assert {w.name for w in after.graph.initializer} == {w.name for w in before.graph.initializer}

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.small import random_calibration, tiny_bare, tiny_defense
from zmask_export.errors import BundleError
from zmask_export.export.bare import TAP_PREFIX, export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.fuse.unfuse import bare_of
from zmask_export.spec import Fill, Policy

SIZE = (48, 64)


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("fill", ["black", "mean"])
def test_the_bare_network_comes_back(policy: Policy, fill: Fill) -> None:
    bare = tiny_bare()
    defense = tiny_defense().model_copy(update={"fill": fill})
    calibration = random_calibration(bare, defense, size=SIZE)
    tapped = export_bare(bare, SIZE)
    original = ir.serde.serialize_model(tapped).SerializeToString()
    found = bare_of(fuse(tapped, calibration, FuseOptions(policy, raw_taps=True)).to_bytes())
    onnx.checker.check_model(onnx.load_model_from_string(found), full_check=True)

    images = np.random.default_rng(0).random((3, 3, *SIZE), np.float32)
    first, second = (
        ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        for model in (original, found)
    )
    assert [value.name for value in second.get_inputs()] == ["image"]
    own = [v.name for v in first.get_outputs() if not v.name.startswith(TAP_PREFIX)]
    assert [value.name for value in second.get_outputs()] == own
    expected, got = (session.run(own, {"image": images}) for session in (first, second))
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    # As many convolutions as before: no part of the defense, and no pass twice.
    convolutions = [
        sum(node.op_type == "Conv" for node in onnx.load_model_from_string(m).graph.node)
        for m in (original, found)
    ]
    assert convolutions[0] == convolutions[1] > 0


def test_a_foreign_graph_is_refused() -> None:
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["pixels"], ["mask"])
    graph = helper.make_graph([node], "g", [image], [mask])
    with pytest.raises(BundleError, match="no network"):
        bare_of(helper.make_model(graph).SerializeToString())

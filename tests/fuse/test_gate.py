"""What stands behind the gate runs as fast as what stands in front of it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort

from tests.fuse.graphs import every_node, fused
from tests.small import exported
from zmask_export.fuse.emit import FuseOptions
from zmask_export.spec import Policy

VECTORS = "com.microsoft.nchwc"


def optimised(model: bytes, path: Path) -> onnx.GraphProto:
    """The graph as ONNX Runtime executes it on this CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(path).graph


def vectorised(graph: onnx.GraphProto) -> int:
    """Convolutions whose kernels are laid out for vectors."""
    return sum(n.op_type == "Conv" and n.domain == VECTORS for n in every_node(graph))


def test_convolutions_of_either_branch_are_laid_out_for_vectors(tmp_path: Path) -> None:
    bare = optimised(exported(None), tmp_path / "bare.onnx")
    gated = optimised(fused(FuseOptions(Policy.GATED)), tmp_path / "gated.onnx")
    [gate] = [node for node in gated.node if node.op_type == "If"]
    branches = {a.name: vectorised(a.g) for a in gate.attribute}
    first = vectorised(gated) - sum(branches.values())
    scores = sum("zscore" in n.name and n.domain == VECTORS for n in gated.node)
    assert vectorised(bare) > 0 or not any(n.domain == VECTORS for n in gated.node)
    assert branches["then_branch"] == vectorised(bare)
    assert branches["else_branch"] + first - scores == vectorised(bare)

"""The suppression stays one node in an exported graph, until the graph is fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnx.defs import OpSchema
from onnxscript.values import Opset

# Registers the operator that is translated here.
from zmask_export.models.detection import suppression as _operator  # noqa: F401

DOMAIN = "zmask"
GREEDY_KEEP = "GreedyKeep"

_FLAGS = "tensor(bool)"
# The exporter writes only what has a schema.
if not onnx.defs.has(GREEDY_KEEP, domain=DOMAIN):
    onnx.defs.register_schema(
        OpSchema(
            GREEDY_KEEP,
            DOMAIN,
            1,
            doc="Greedy non-maximum suppression of boxes in groups.",
            inputs=[
                OpSchema.FormalParameter("boxes", "tensor(float)", description="(N, G, K, 4)"),
                OpSchema.FormalParameter("valid", _FLAGS, description="(N, G, K)"),
                OpSchema.FormalParameter("labels", "tensor(int64)", description="(N, G, K)"),
            ],
            outputs=[OpSchema.FormalParameter("keep", _FLAGS, description="(N, G, K)")],
            attributes=[OpSchema.Attribute("iou", OpSchema.AttrType.FLOAT, required=True)],
        )
    )
_OPSET = Opset(DOMAIN, 1)


def _greedy_keep(boxes: Any, valid: Any, labels: Any, iou: float) -> Any:
    return _OPSET.GreedyKeep(boxes, valid, labels, iou=iou)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.zmask.greedy_keep.default: _greedy_keep
}
"""PyTorch operator to the function that writes its node."""

"""A fused graph with its dynamic batch fixed: what reproducible engines are compiled from."""

from __future__ import annotations

import onnx


def fix_batch(model: bytes, batch: int) -> bytes:
    """The graph with a batch of ``batch`` declared at its inputs and outputs.

    Args:
        model: an ONNX file with a dynamic or fixed batch; a fixed one stays.
        batch: images a run.
    """
    proto = onnx.load_model_from_string(model)
    for value in (*proto.graph.input, *proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_param:
            dims[0].dim_value = batch
    return proto.SerializeToString(deterministic=True)

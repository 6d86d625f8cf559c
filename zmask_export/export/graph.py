"""A user's ONNX file to a bare graph in the form that ``export_bare`` gives.

Requires: a file that ONNX Runtime runs. Ensures: opset ``opset``, one input ``image`` (N, 3, H, W) with
the normalisation behind it, no functions, no subgraphs, constants folded, every name below ``network/``,
outputs and taps under the names that were asked for. What is refused is named.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from onnx import ModelProto, inliner, version_converter

from zmask_export.errors import NetworkError, UsageError
from zmask_export.foreign.onnx_file import fix_input
from zmask_export.foreign.onnx_network import OnnxNetwork
from zmask_export.spec import Preprocess, Size

_IR_VERSION = 10
_DTYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.int32: ir.DataType.INT32,
    torch.int64: ir.DataType.INT64,
}


def export_graph(
    network: OnnxNetwork, size: Size, batch: int | None, *, opset: int, tap_prefix: str, part: str
) -> ir.Model:
    """The bare graph of an ONNX file.

    Args:
        network: the file, its taps and outputs.
        size: input (H, W).
        batch: fixed batch, or None for a dynamic one.
        opset: operator set of the result.
        tap_prefix: a tap's output is called so and its name.
        part: what all names begin with.

    Raises:
        UsageError: the file takes another batch.
        NetworkError: the file cannot be brought to the opset, or holds control flow.
    """
    if network.batch is not None and batch != network.batch:
        raise UsageError(
            f"The ONNX file takes {network.batch} images at a time, not {batch or 'any number'}.",
            fix=f"Build with --batch {network.batch}.",
        )
    proto = _upgraded(network.file.proto, opset, network.file.path.name)
    fix_input(proto, network.file.image, batch or "N", size)
    proto.ir_version = _IR_VERSION
    model = ir.serde.deserialize_model(proto)
    graph = model.graph
    # Old files list their weights among the inputs.
    image = next(value for value in graph.inputs if value.name == network.file.image)
    graph.inputs.clear()
    graph.inputs.append(image)
    _set_outputs(network, graph, size, tap_prefix)
    with _quiet():
        onnxscript.optimizer.optimize(model, num_iterations=2, onnx_shape_inference=True)
    _require_flat(graph, network.file.path.name)
    _rename(graph, part, tap_prefix, image)
    _normalise(graph, image, network.preprocess, part)
    model.metadata_props.clear()
    model.functions.clear()
    for domain in [d for d in model.opset_imports if d not in _domains(graph)]:
        del model.opset_imports[domain]
    return model


def _upgraded(proto: ModelProto, opset: int, name: str) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(proto)
    if copy.functions:
        # The converter leaves functions as they are, too.
        copy = inliner.inline_local_functions(copy)
    have = next((o.version for o in copy.opset_import if o.domain in ("", "ai.onnx")), None)
    if have == opset:
        return copy
    advice = f"Export the network again with opset {opset}."
    if have is None:
        raise NetworkError(f"The ONNX file {name} has no standard operators.", fix=advice)
    if any(a.HasField("g") or a.graphs for n in copy.graph.node for a in n.attribute):
        # The converter leaves subgraphs as they are.
        raise NetworkError(
            f"The ONNX file {name} has opset {have} and control flow, which cannot be brought to opset "
            f"{opset}.",
            fix=advice,
        )
    try:
        return version_converter.convert_version(copy, opset)
    except Exception as exc:  # the converter raises RuntimeError and its own kinds
        reason = " ".join(str(exc).split())[:200]
        raise NetworkError(
            f"The ONNX file {name} cannot be brought from opset {have} to {opset} ({reason}).",
            fix=advice,
        ) from exc


def _set_outputs(network: OnnxNetwork, graph: ir.Graph, size: Size, tap_prefix: str) -> None:
    values = {value.name: value for node in graph for value in node.outputs}
    n = graph.inputs[0].shape[0] if graph.inputs[0].shape is not None else None
    with torch.inference_mode():
        outputs, features = network(torch.full((1, 3, *size), 0.5))
    graph.outputs.clear()
    wanted = [(name, network.named[name], outputs[name]) for name in outputs]
    wanted += [(f"{tap_prefix}{tap}", network.paths[tap], features[tap]) for tap in features]
    for name, source, seen in wanted:
        # Of its own: one tensor may be an output, a tap, and read by other nodes.
        node = ir.node("Identity", inputs=[values[source]])
        graph.append(node)
        (value,) = node.outputs
        value.name = name
        value.type = ir.TensorType(_DTYPES[seen.dtype])
        value.shape = ir.Shape([n, *seen.shape[1:]])
        graph.outputs.append(value)


def _require_flat(graph: ir.Graph, name: str) -> None:
    for node in graph:
        if any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for a in node.attributes.values()
        ):
            raise NetworkError(
                f"The ONNX file {name} has control flow: the {node.op_type} {node.name!r}.",
                fix="Export the network without branches and loops, for a fixed input size.",
            )


def _rename(graph: ir.Graph, part: str, tap_prefix: str, image: ir.Value) -> None:
    kept = {value.name for value in graph.outputs}
    for value in list(graph.initializers.values()):
        value.name = f"{part}/{value.name}"
        value.metadata_props.clear()
    for index, node in enumerate(graph):
        node.name = f"{part}/{node.name or f'{node.op_type}_{index}'}"
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value.name and value not in graph.outputs:
                value.name = f"{part}/{value.name}"
    image.name = "image"
    graph.name = part
    graph.doc_string = None
    graph.metadata_props.clear()
    if "image" in kept or len(kept) != len(graph.outputs):
        raise NetworkError("Two tensors have one name.", fix=f"Rename one that is no {tap_prefix}.")


def _normalise(graph: ir.Graph, image: ir.Value, preprocess: Preprocess, part: str) -> None:
    """(x - mean) / std in front of the network, as ``models.registry.normalise`` does it."""
    readers = list(image.uses())
    value = image
    nodes: list[ir.Node] = []

    def constant(name: str, array: NDArray[Any]) -> ir.Value:
        tensor = ir.tensor(array, name=f"{part}/{name}")
        stored = ir.Value(name=tensor.name, const_value=tensor)
        stored.type, stored.shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
        graph.initializers[f"{part}/{name}"] = stored
        return stored

    def apply(op: str, name: str, array: NDArray[Any], **attributes: int) -> ir.Value:
        node = ir.node(op, inputs=[value, constant(name, array)], attributes=attributes)
        node.name = f"{part}/preprocess/{op}"
        (result,) = node.outputs
        result.name, result.type, result.shape = f"{node.name}:0", image.type, image.shape
        nodes.append(node)
        return result

    if preprocess.bgr:
        value = apply("Gather", "preprocess.bgr", np.array([2, 1, 0], np.int64), axis=1)
    if any(preprocess.mean):
        value = apply("Sub", "preprocess.mean", _column(preprocess.mean))
    if preprocess.std != (1.0, 1.0, 1.0):
        value = apply("Div", "preprocess.std", _column(preprocess.std))
    if nodes:
        graph.insert_before(graph[0], nodes)
        for node, index in readers:
            node.replace_input_with(index, value)


def _column(values: tuple[float, float, float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)[:, None, None]


def _domains(graph: ir.Graph) -> set[str]:
    return {"", *(node.domain for node in graph)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the optimiser prints off the screen."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)

"""Readable names: which part of the engine, which module, which operator.

Requires: a graph from torch's exporter. Ensures: node names are unique and start with ``network/``,
weights are called ``network/<module path>.<parameter>``, and no trace of the machine (stack traces,
paths) is left in the metadata.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

NETWORK = "network"
"""Part name of the network's own nodes."""

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_by_module(graph: ir.Graph, strip: tuple[str, ...] = ()) -> None:
    """Rename nodes, their outputs and the initializers of ``graph`` in place.

    Args:
        graph: the exported graph.
        strip: leading module path parts to leave out.
    """
    keep = {value.name for value in (*graph.inputs, *graph.outputs)}
    for value in list(graph.initializers.values()):
        value.name = f"{NETWORK}/{_stripped(value.name or 'constant', strip)}"
        value.metadata_props.clear()
    seen: Counter[str] = Counter()
    for node in graph:
        base = "/".join(filter(None, (NETWORK, _module_path(node, strip), node.op_type)))
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base]}"
        for index, value in enumerate(node.outputs):
            if value.name not in keep:
                value.name = f"{node.name}:{index}"
            value.metadata_props.clear()
        node.metadata_props.clear()
        node.doc_string = None
    graph.metadata_props.clear()
    graph.doc_string = None


def _module_path(node: ir.Node, strip: tuple[str, ...]) -> str:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is not None and weight.is_initializer() and (weight.name or "").endswith(".weight"):
        # A convolution that swallowed its batch norm carries the latter's scope: its weight knows.
        return (weight.name or "").removeprefix(f"{NETWORK}/").removesuffix(".weight")
    text = node.metadata_props.get(_SCOPES)
    if text is None:
        return ""
    scopes = [scope for scope in ast.literal_eval(text)[:-1] if scope]
    return _stripped(scopes[-1], strip) if scopes else ""


def _stripped(path: str, strip: tuple[str, ...]) -> str:
    parts = path.split(".")
    while parts and parts[0] in strip:
        parts = parts[1:]
    return ".".join(parts)

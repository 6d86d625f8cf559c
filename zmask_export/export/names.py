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
    seen: Counter[str] = Counter()
    for node in graph:
        path = _module_path(node, strip)
        base = "/".join(filter(None, (NETWORK, path, node.op_type)))
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base]}"
        for index, value in enumerate(node.outputs):
            if value.name not in keep:
                value.name = f"{node.name}:{index}"
            value.metadata_props.clear()
        node.metadata_props.clear()
        node.doc_string = None
    for value in list(graph.initializers.values()):
        parts = (value.name or "constant").split(".")
        while parts and parts[0] in strip:
            parts = parts[1:]
        value.name = f"{NETWORK}/{'.'.join(parts)}"
        value.metadata_props.clear()
    graph.metadata_props.clear()
    graph.doc_string = None


def _module_path(node: ir.Node, strip: tuple[str, ...]) -> str:
    text = node.metadata_props.get(_SCOPES)
    if text is None:
        return ""
    scopes = [scope for scope in ast.literal_eval(text)[:-1] if scope]
    parts = scopes[-1].split(".") if scopes else []
    while parts and parts[0] in strip:
        parts = parts[1:]
    return ".".join(parts)

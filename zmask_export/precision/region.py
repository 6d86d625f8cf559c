"""Which nodes of an exported network leave float32: decided by what they are and what hangs on them.

Products (convolutions and linear layers) do, and so does what only carries values from one product to the
next. Everything else stays: normalisation and resizing of the image in front of the first product;
behind the last one the upsampling of scores, and the decoding of boxes, top-k and suppression, whose
pixel coordinates a short type would round; RoIAlign, which reads maps at such coordinates; norms, whose
sums of squares float16 could not hold. And two kinds of products stay, and are named so:

- the first ones, which read the image: all pixels of a sky or a wall are rounded alike, and that error is
  no noise, which the cascade's windows would average away, but a colour;
- with 8 significant bits, those on the way to the taps that are cheap to reach: what is rounded away in
  front of a tap, the scores lack.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx_ir as ir

from zmask_export.export.bare import TAP_PREFIX
from zmask_export.spec import KEPT

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with almost all of a network's work."""

SHARES = {"bf16": 0.05, "int8": 0.25}
"""Precision to the share of a network's multiplications that may stay float32 on the way to taps. float16,
with 11 significant bits, needs none."""

_CARRIERS = frozenset(
    {
        *("Add", "Sub", "Mul", "Max", "Min", "Clip", "Relu", "LeakyRelu", "PRelu", "Sigmoid"),
        *("HardSigmoid", "HardSwish", "Tanh", "BatchNormalization", "MaxPool", "AveragePool"),
        *("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Resize", "Concat", "Split", "Slice"),
        *("Pad", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Identity"),
    }
)
"""Operators that a short type serves as well as it serves the products beside them."""


def low_region(graph: ir.Graph) -> set[ir.Node]:
    """The products that are not named to stay, and the carriers on the way from one of them to another.

    A carrier takes part only where every value that it reads does: a sum of a map and of coordinates, say,
    stays in float32.

    Args:
        graph: flat and in order, as ``export_bare`` gives it.
    """
    constants = constant_values(graph)
    fed: set[ir.Node] = set()
    for node in graph:
        if not _floating(node) or (node.name or "").endswith(KEPT):
            continue
        if node.op_type in PRODUCTS:
            fed.add(node)
        elif node.op_type in _CARRIERS:
            read = [v for v in node.inputs if v is not None and _is_float(v)]
            varying = [v for v in read if v not in constants]
            if varying and all(v.producer() in fed for v in varying):
                fed.add(node)
    low: set[ir.Node] = set()
    for node in reversed(graph):
        if node in fed and (
            node.op_type in PRODUCTS or any(user in low for user in node.successors())
        ):
            low.add(node)
    return low


def first_products(graph: ir.Graph) -> set[ir.Node]:
    """Products that read the image, not what another product made of it.

    Args:
        graph: flat and in order, as ``export_bare`` gives it.
    """
    first: set[ir.Node] = set()
    behind: set[ir.Node] = set()
    for node in graph:
        sources = [v.producer() for v in node.inputs if v is not None]
        if any(source in behind for source in sources):
            behind.add(node)
        elif node.op_type in PRODUCTS:
            first.add(node)
            behind.add(node)
    return first


def products_to_taps(graph: ir.Graph, share: float) -> set[ir.Node]:
    """Products on the way to taps, those that are cheapest to reach first.

    Args:
        graph: flat and in order, as ``export_bare`` gives it.
        share: of the network's multiplications, which all of them together may have.
    """
    whole = _work(node for node in graph if node.op_type in PRODUCTS)
    taps = [value for value in graph.outputs if (value.name or "").startswith(TAP_PREFIX)]
    ways = sorted((_products_before(value) for value in taps), key=_work)
    taken: set[ir.Node] = set()
    for way in ways:
        if _work(taken | way) <= share * whole:
            taken |= way
    return taken


def _products_before(value: ir.Value) -> set[ir.Node]:
    seen: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [v.producer() for v in node.inputs if v is not None]
    return {node for node in seen if node.op_type in PRODUCTS}


def _work(products: Iterable[ir.Node]) -> int:
    """Multiplications of one image, those of convolutions; other products hardly count."""
    total = 0
    for node in products:
        weights, out = node.inputs[1], node.outputs[0]
        if weights is None or weights.shape is None or out.shape is None or len(out.shape) != 4:
            continue
        sides = [side for side in (*weights.shape, *list(out.shape)[2:]) if isinstance(side, int)]
        total += math.prod(sides)
    return total


def name_kept(nodes: Iterable[ir.Node]) -> None:
    """Let the names of products say that they stay float32; an engine is checked by them."""
    for node in nodes:
        node.name = f"{node.name}{KEPT}"


def constant_values(graph: ir.Graph) -> set[ir.Value]:
    """Values that hang on no input of the graph."""
    found = set(graph.initializers.values())
    for node in graph:
        if all(value is None or value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _floating(node: ir.Node) -> bool:
    return node.domain == "" and _is_float(node.outputs[0])


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT

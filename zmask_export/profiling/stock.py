"""What a graph is made of, in numbers; see :mod:`zmask_export.profiling.layers`, which reads it."""

from __future__ import annotations

from zmask_export.spec import Spec


class Layer(Spec):
    """One node: its name, part, operator, and how many loops and branches it lies in."""

    name: str
    part: str
    operator: str
    depth: int


class Part(Spec):
    """A part of the graph.

    Attributes:
        part: ``network``, ``zscore``, ``cascade``, ``fusion``, ``gate``, ``second_pass``, ``suppression``.
        nodes: how many, those inside loops and branches too.
        operators: operator to number of nodes, the most frequent first.
        weight_bytes: of the constants that are stored under its name; a second pass reads the network's.
    """

    part: str
    nodes: int
    operators: dict[str, int]
    weight_bytes: int


class Graph(Spec):
    """Operator set, parts, and every node in order."""

    opset: int
    parts: tuple[Part, ...]
    layers: tuple[Layer, ...]

"""Where a run's time goes: ONNX Runtime's own profile, attributed to the parts of the engine by name.

Nodes are named after their part. Those that ONNX Runtime adds are not: a node that changes the layout
belongs to what reads its result, for whose sake it is there; a convolution that was renamed after its
output belongs to what feeds it. An ``If`` or a ``Loop`` counts without the nodes inside, which count for
themselves.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measuring.sessions import bound, open_session, session_options
from numpy.typing import NDArray

from overhead.cases import feed
from overhead.record import Frame, Parts

PARTS = ("network", "zscore", "cascade", "fusion", "gate", "second_pass", "suppression")
"""First component of a node's name."""
WITH_TAPS = ("zscore", "cascade")
"""Parts whose second component is a tap."""
RUNTIME = "runtime"
"""What lies between operators."""

NodePath = tuple[str, ...]
"""Names of the nodes around a node, and its own."""

_LAYOUT = ("ReorderInput", "ReorderOutput", "Transpose", "Cast")
_SUFFIX = "_kernel_time"


def profile(
    model: bytes,
    images: NDArray[np.float32],
    *,
    case: str,
    frame: Frame | None,
    threads: int,
    rounds: int,
) -> Parts:
    """Profile a graph on the CPU and attribute its time; the mean of the rounds after a warm-up.

    Args:
        model: the graph.
        images: float32 (N, 3, H, W) in [0, 1].
        case: what it is called.
        frame: which branch the gate shall take.
        threads: of the session.
        rounds: runs that count.
    """
    options = session_options(threads)
    with tempfile.TemporaryDirectory(prefix="zmask-profile-") as name:
        folder = Path(name)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        session = open_session(model, threads, options=options)
        run = bound(session, feed(images, frame))
        for _ in range(1 + rounds):
            run()
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        optimized = onnx.load(folder / "optimized.onnx")
    own = own_times(events, skip=1)
    owners = attribute(optimized.graph, own)
    parts: dict[str, float] = defaultdict(float)
    for path, micros in own.items():
        parts[owners[path] if path else RUNTIME] += micros / 1e3 / rounds
    return Parts(
        case=case,
        frame=frame,
        batch=len(images),
        total_ms=_runs(events, skip=1) / 1e3 / rounds,
        parts_ms=dict(sorted(parts.items(), key=lambda item: -item[1])),
    )


def own_times(events: Sequence[Mapping[str, Any]], skip: int = 0) -> dict[NodePath, float]:
    """Microseconds of every node without the nodes inside it.

    Args:
        events: of a profile.
        skip: runs at the beginning that do not count.

    Returns:
        By path: the names of the nodes around it and its own. The empty path is a run outside all nodes.
    """
    spans = [_Span.of(event) for event in events if _is_node(event) or _is_run(event)]
    # Of spans that start together the longer one is the outer one.
    spans.sort(key=lambda span: (span.start, -span.end, span.node is not None))
    runs = 0
    around: list[_Span] = []
    own: dict[NodePath, float] = defaultdict(float)
    for span in spans:
        runs += span.node is None
        if runs <= skip:
            continue
        while around and around[-1].end <= span.start:
            around.pop()
        if around:
            own[_path(around)] -= span.end - span.start
        around.append(span)
        own[_path(around)] += span.end - span.start
    return dict(own)


@dataclass(frozen=True)
class _Span:
    node: str | None
    start: float
    end: float

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> _Span:
        node = event["name"].removesuffix(_SUFFIX) if _is_node(event) else None
        return cls(node, event["ts"], event["ts"] + event["dur"])


def _runs(events: Sequence[Mapping[str, Any]], skip: int) -> float:
    """Microseconds of all runs but the first ones, as the profile says of the runs themselves."""
    return float(sum([event["dur"] for event in events if _is_run(event)][skip:]))


def _path(around: Sequence[_Span]) -> NodePath:
    return tuple(span.node for span in around if span.node is not None)


def _is_node(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and event["name"].endswith(_SUFFIX)


def _is_run(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Session" and event["name"] == "model_run"


def attribute(
    graph: onnx.GraphProto, ran: Collection[NodePath], at: NodePath = ()
) -> dict[NodePath, str]:
    """The part of every node of an optimized graph, by path.

    Args:
        graph: the graph, or the body or branch at ``at``.
        ran: paths of the nodes that ran, which say what branch of an ``If`` was taken.
        at: names of the nodes around ``graph``.
    """
    links = _Links(graph)
    sure = [_named(node) for node in links.nodes]
    for index in links.computing:
        sure[index] = sure[index] or links.nearest(index, links.makers, sure)
    found: dict[NodePath, str] = {}
    for index, node in enumerate(graph.node):
        part = sure[index] or links.nearest(index, links.readers, sure)
        part = part or links.nearest(index, links.makers, sure)
        here = (*at, node.name)
        # What is linked to no named node is a constant of the network.
        found[here] = part or "network"
        inside = {path[len(here)] for path in ran if path[: len(here)] == here != path}
        # Branches may share a name: the one that ran has the last word.
        for body in sorted(
            _bodies(node), key=lambda body: len(inside & {inner.name for inner in body.node})
        ):
            found |= attribute(body, ran, here)
    return found


class _Links:
    """Who makes what the nodes of a graph read, and who reads what they make, inside its bodies too."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = [*graph.node, *(inner for node in graph.node for inner in _inner(node))]
        self.computing = [i for i, node in enumerate(self.nodes) if node.op_type not in _LAYOUT]
        # Names are unique in a graph only: a body's own values are of no account here.
        makers = {value: i for i, node in enumerate(graph.node) for value in node.output if value}
        self.makers: dict[int, list[int]] = defaultdict(list)
        self.readers: dict[int, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for value in node.input:
                if value in makers and makers[value] != index:
                    self.makers[index].append(makers[value])
                    self.readers[makers[value]].append(index)

    def nearest(
        self, start: int, links: Mapping[int, list[int]], parts: Sequence[str | None]
    ) -> str | None:
        """The part of the nearest node that has one, along links; of several as near the network first."""
        seen, ring = {start}, set(links.get(start, ()))
        while ring:
            found = sorted({part for index in ring if (part := parts[index])})
            if found:
                return "network" if "network" in found else found[0]
            seen |= ring
            ring = {far for index in ring for far in links.get(index, ())} - seen
        return None


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def _inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for body in _bodies(node):
        for inner in body.node:
            yield inner
            yield from _inner(inner)


def _named(node: onnx.NodeProto) -> str | None:
    """The part that a node's name says; with the tap where a part has one."""
    first, _, rest = node.name.partition("/")
    if first not in PARTS:
        return None
    return f"{first}/{rest.split('/')[0]}" if first in WITH_TAPS and "/" in rest else first

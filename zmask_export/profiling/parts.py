"""Where a run's time goes: ONNX Runtime's own profile, attributed to the parts of the engine by name.

Nodes are named after their part. Those that ONNX Runtime adds are not: a node that changes the layout
belongs to what reads its result, for whose sake it is there; a convolution that was renamed after its
output belongs to what feeds it. An ``If`` or a ``Loop`` counts without the nodes inside, which count for
themselves.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from zmask_export.artifacts.scratch import scratch
from zmask_export.profiling.sessions import open_session, session_options

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


@dataclass(frozen=True)
class NodeTimes:
    """One run as the profile has it.

    Attributes:
        total: microseconds of the run.
        own: microseconds of every node without the nodes inside it, by path; the empty path is the run
            outside all nodes.
        events: how often each node ran.
    """

    total: float
    own: dict[NodePath, float]
    events: dict[NodePath, int]


@dataclass(frozen=True)
class PartTimes:
    """Milliseconds of one run, or of the mean of several.

    Attributes:
        total_ms: the run.
        parts_ms: by part: ``network``, ``zscore/TAP``, ``cascade/TAP``, ``fusion``, ``gate``,
            ``second_pass``, ``suppression``; ``runtime`` is what lies between operators.
        events: nodes that ran, by part.
        held: the same by the part of the node around them; ``runtime`` for those in none.
    """

    total_ms: float
    parts_ms: dict[str, float]
    events: dict[str, float]
    held: dict[str, float]


class Profiled:
    """A session on the CPU that writes a profile.

    Attributes:
        session: run it as often as wanted, then ask for :meth:`runs` once.
    """

    def __init__(self, session: ort.InferenceSession, folder: Path) -> None:
        self.session = session
        self._folder = folder

    def runs(self) -> list[PartTimes]:
        """Every run so far, in order; the profile ends here."""
        profile = json.loads(Path(self.session.end_profiling()).read_text("utf-8"))
        graph = onnx.load(self._folder / _OPTIMIZED).graph
        owners: dict[frozenset[NodePath], dict[NodePath, str]] = {}
        found = []
        for run in node_times(profile):
            ran = frozenset(run.own)
            if ran not in owners:
                owners[ran] = attribute(graph, ran)
            parts: dict[str, float] = defaultdict(float)
            events: dict[str, float] = defaultdict(float)
            held: dict[str, float] = defaultdict(float)
            part_at = owners[ran] | {(): RUNTIME}
            for path, micros in run.own.items():
                parts[part_at[path]] += micros / 1e3
                if path:
                    events[part_at[path]] += run.events[path]
                    held[part_at[path[:-1]]] += run.events[path]
            found.append(PartTimes(run.total / 1e3, dict(parts), dict(events), dict(held)))
        return found


_OPTIMIZED = "optimized.onnx"


@contextlib.contextmanager
def profiled(model: bytes, threads: int) -> Iterator[Profiled]:
    """A session that writes a profile, which is gone after the block.

    Args:
        model: the graph.
        threads: of the session.
    """
    with scratch("profile") as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.optimized_model_filepath = str(folder / _OPTIMIZED)
        yield Profiled(open_session(model, threads, options=options), folder)


def mean(runs: Sequence[PartTimes]) -> PartTimes:
    """The mean of runs, the longest part first."""
    parts = _mean([run.parts_ms for run in runs])
    return PartTimes(
        sum(run.total_ms for run in runs) / len(runs),
        dict(sorted(parts.items(), key=lambda item: -item[1])),
        _mean([run.events for run in runs]),
        _mean([run.held for run in runs]),
    )


def _mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for found in values:
        for name, value in found.items():
            total[name] += value / len(values)
    return dict(total)


def node_times(events: Sequence[Mapping[str, Any]]) -> list[NodeTimes]:
    """Every run of a profile, in order.

    Args:
        events: of the profile, in any order.
    """
    spans = [_Span.of(event) for event in events if _is_node(event) or _is_run(event)]
    # Of spans that start together the longer one is the outer one.
    spans.sort(key=lambda span: (span.start, -span.end, span.node is not None))
    runs: list[NodeTimes] = []
    around: list[_Span] = []
    for span in spans:
        if span.node is None:
            around = []
            runs.append(NodeTimes(span.end - span.start, defaultdict(float), defaultdict(int)))
        elif not runs:
            continue
        own = runs[-1].own
        while around and around[-1].end <= span.start:
            around.pop()
        if around:
            own[_path(around)] -= span.end - span.start
        around.append(span)
        own[_path(around)] += span.end - span.start
        runs[-1].events[_path(around)] += 1
    return [NodeTimes(run.total, dict(run.own), dict(run.events)) for run in runs]


@dataclass(frozen=True)
class _Span:
    node: str | None
    start: float
    end: float

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> _Span:
        node = event["name"].removesuffix(_SUFFIX) if _is_node(event) else None
        return cls(node, event["ts"], event["ts"] + event["dur"])


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
    return part_of(node.name)


def part_of(name: str) -> str | None:
    """The part that a node's name says, with the tap where a part has one; None where it says none."""
    first, _, rest = name.partition("/")
    if first not in PARTS:
        return None
    return f"{first}/{rest.split('/')[0]}" if first in WITH_TAPS and "/" in rest else first

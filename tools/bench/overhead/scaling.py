"""How the cost grows: over resolution, channels of a tap, and number of taps, everything else kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from lowerings import cascade_graph

from overhead.graphs import Graphs, frames, to_bytes, to_model, without_taps
from overhead.record import Curve, Point
from zmask_export.artifacts.calibration import Calibration
from zmask_export.data.scene import MIN_SIDE
from zmask_export.export.bare import export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.fuse.plan import plan_taps
from zmask_export.profiling.frames import feed
from zmask_export.profiling.sessions import bound, open_session
from zmask_export.profiling.timing import ratio, spread, take_turns
from zmask_export.spec import DefenseSpec, Policy, Size

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Sides of the input over those of the preset."""
CHANNELS = (64, 128, 256, 512, 1024, 2048)
_STEP = 32

Number = TypeVar("Number", int, float)

Runs = dict[tuple[int, str], Callable[[], object]]
"""(point, ``bare`` or ``protected``) to one run."""


def curves(graphs: Graphs, rounds: int, threads: int, *, quick: bool) -> list[Curve]:
    """All three curves; ``quick`` takes the ends alone, of those that need no other export."""
    sizes = [] if quick else [over_resolution(graphs, rounds, threads, SHARES)]
    return [
        *sizes,
        over_channels(graphs, rounds, threads, _ends(CHANNELS, quick=quick)),
        over_taps(graphs, rounds, threads, quick=quick),
    ]


def over_resolution(graphs: Graphs, rounds: int, threads: int, shares: tuple[float, ...]) -> Curve:
    """``detect`` and bare at several input sizes, with the preset's grid."""
    opened, calibration = graphs.opened, graphs.calibration
    least = max(opened.entry.min_side, MIN_SIDE)
    sizes = list(dict.fromkeys(_scaled(opened.input_size, share, least) for share in shares))
    runs: Runs = {}
    for index, size in enumerate(sizes):
        bare, protected = graphs.bare, graphs.protected[Policy.DETECT]
        if size != opened.input_size:
            exportable = replace(opened, input_size=size).exportable(calibration.header.defense)
            tapped = to_bytes(export_bare(exportable, size))
            bare = without_taps(tapped)
            protected = _detect(tapped, calibration.with_header(input_size=size))
        runs |= _pair(index, bare, protected, size, threads)
    labels = [(h * w, f"{h} x {w}") for h, w in sizes]
    what = "detect, ONNX Runtime, the preset's grid at every size"
    return Curve(over="resolution", what=what, points=_points(labels, runs, rounds))


def over_channels(graphs: Graphs, rounds: int, threads: int, channels: tuple[int, ...]) -> Curve:
    """The cascade alone, of a tap as large as the one with most channels, with more and fewer of them."""
    defense = graphs.calibration.header.defense
    widest = max(graphs.plans, key=lambda plan: plan.shape[0])
    h, w = widest.shape[1:]
    alone = _restricted(defense, widest.tap)
    runs: Runs = {}
    for index, count in enumerate(channels):
        (plan,) = plan_taps(alone, {widest.tap: (count, h, w)})
        z = np.random.default_rng(0).standard_normal((1, count, h, w), np.float32)
        session = open_session(cascade_graph(plan, defense.grid), threads)
        runs[index, "protected"] = bound(session, {"z": z})
    labels = [(count, str(count)) for count in channels]
    what = f"cascade alone, a tap of {h} x {w} as {widest.tap}"
    return Curve(over="channels", what=what, points=_points(labels, runs, rounds))


def over_taps(graphs: Graphs, rounds: int, threads: int, *, quick: bool) -> Curve:
    """``detect`` with the first taps of S and D, one more of each at a time."""
    calibration = graphs.calibration
    defense = calibration.header.defense
    most = max(len(defense.shallow), len(defense.deep))
    runs: Runs = {}
    labels = []
    for index, count in enumerate(_ends(tuple(range(1, most + 1)), quick=quick)):
        changes = {"shallow": defense.shallow[:count], "deep": defense.deep[:count]}
        fewer = defense.model_copy(update=changes)
        protected = graphs.protected[Policy.DETECT]
        if fewer.taps != defense.taps:
            protected = _detect(graphs.tapped, calibration.with_header(defense=fewer))
        runs |= _pair(index, graphs.bare, protected, graphs.opened.input_size, threads)
        labels.append((len(fewer.taps), str(len(fewer.taps))))
    what = "detect, ONNX Runtime, the first taps of S and D"
    return Curve(over="taps", what=what, points=_points(labels, runs, rounds))


def _restricted(defense: DefenseSpec, tap: str) -> DefenseSpec:
    """The defense of one tap alone, in the sets that it is in."""
    sets = {
        name: tuple(other for other in getattr(defense, name) if other == tap)
        for name in ("shallow", "deep")
    }
    return defense.model_copy(update=sets)


def _detect(tapped: bytes, calibration: Calibration) -> bytes:
    return fuse(to_model(tapped), calibration, FuseOptions(Policy.DETECT)).to_bytes()


def _pair(index: int, bare: bytes, protected: bytes, size: Size, threads: int) -> Runs:
    inputs = feed(frames(size, 1), "clean")
    return {
        (index, "bare"): bound(open_session(bare, threads), inputs),
        (index, "protected"): bound(open_session(protected, threads), inputs),
    }


def _points(labels: list[tuple[int, str]], runs: Runs, rounds: int) -> tuple[Point, ...]:
    times = take_turns(runs, rounds)
    points = []
    for index, (x, label) in enumerate(labels):
        taken, bare = times[index, "protected"], times.get((index, "bare"))
        points.append(
            Point(
                x=x,
                label=label,
                protected_ms=spread(taken),
                bare_ms=None if bare is None else spread(bare),
                over_bare=None if bare is None else ratio(taken, bare),
            )
        )
    return tuple(points)


def _scaled(size: Size, share: float, least: int) -> Size:
    """A size near a share of another, in steps that networks take."""
    if share == 1:
        return size
    h, w = (max(round(side * share / _STEP) * _STEP, _STEP, least) for side in size)
    return h, w


def _ends(values: tuple[Number, ...], *, quick: bool) -> tuple[Number, ...]:
    return values if not quick or len(values) < 3 else (values[0], values[-1])

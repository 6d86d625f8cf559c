"""The record as one picture: ratios, parts, scaling."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from overhead.record import Curve, Parts, Record, Timing
from zmask_export.profiling.parts import PARTS, RUNTIME

# Okabe and Ito's palette, told apart by colour-blind readers.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a", "#000000")
_PROTECTED, _BARE = _COLOURS[0], _COLOURS[6]
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw(record: Record) -> bytes:
    """A PNG file; what the record lacks is left out."""
    count = bool(record.timings) + bool(record.parts) + len(record.scaling)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.2 * max(count, 1)), layout="constrained")
        places = iter(figure.subplots(max(count, 1), squeeze=False)[:, 0])
        if record.timings:
            _ratios(record.timings, next(places))
        if record.parts:
            _parts(record.parts, next(places))
        for curve in record.scaling:
            _scaling(curve, next(places))
        (h, w), machine = record.input_size, record.machine
        figure.suptitle(
            f"{record.model}, {h} x {w}: {machine.cpu}, {machine.threads} threads, "
            f"commit {machine.commit}",
            fontsize=9,
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=150)
    return buffer.getvalue()


def _ratios(timings: Sequence[Timing], axes: Axes) -> None:
    """Every case over the bare network on the same runner, with quartiles; 1 is bare."""
    runners = list(dict.fromkeys(timing.runner for timing in timings))
    names: list[str] = []
    for timing in timings:
        over = timing.over_bare
        if over is None:
            continue
        colour = _COLOURS[runners.index(timing.runner) % len(_COLOURS)]
        error = [[over.median - over.lower], [over.upper - over.median]]
        axes.barh(len(names), over.median, xerr=error, color=colour, height=0.7)
        names.append(f"{timing.runner}, {timing.case} {timing.frame}, batch {timing.batch}")
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.invert_yaxis()
    axes.axvline(1, color=_BARE, linewidth=0.8)
    axes.set_xlabel("time over the bare network on the same runner")


def _parts(found: Sequence[Parts], axes: Axes) -> None:
    """A stacked bar a case."""
    for row, one in enumerate(found):
        left = 0.0
        for part, colour in zip((*PARTS, RUNTIME), _COLOURS, strict=True):
            label = part if row == 0 else None
            axes.barh(row, one.share(part), left=left, color=colour, height=0.7, label=label)
            left += one.share(part)
    names = [f"{' '.join(filter(None, (p.case, p.frame)))}, batch {p.batch}" for p in found]
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("ms, ONNX Runtime's profile on the CPU")
    axes.legend(fontsize=6, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _scaling(curve: Curve, axes: Axes) -> None:
    """Time over what grows, protected and bare."""
    x = [point.x for point in curve.points]
    protected = [point.protected_ms.median for point in curve.points]
    axes.plot(x, protected, "o-", color=_PROTECTED, label="protected")
    bare = [point.bare_ms.median for point in curve.points if point.bare_ms is not None]
    if bare:
        axes.plot(x, bare, "s-", color=_BARE, label="bare")
        axes.legend(fontsize=7, frameon=False)
    axes.set_xticks(x, [point.label for point in curve.points], fontsize=7, rotation=30)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms")
    axes.set_title(f"over {curve.over}: {curve.what}", fontsize=8)

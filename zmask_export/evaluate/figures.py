"""The paper's figures as SVG for a page: no colours of their own for text and axes, so that they are
readable on light and on dark."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zmask_export.evaluate.bootstrap import Estimate
from zmask_export.evaluate.quality import Row
from zmask_export.evaluate.report import NAMES, NetworkReport

_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
# Okabe and Ito's palette, told apart by colour-blind readers: mid tones, for light and for dark.
_STYLE = {
    "zmask": ("#0072b2", "o"), "masknet": ("#d55e00", "s"), "lgs": ("#009e73", "^"),
    "none": ("#8a8a8a", "x"), "hn": ("#cc79a7", "v"), "fpda": ("#e69f00", "D"),
    "fpda+": ("#b07800", "P"),
}  # fmt: skip
_AWARE = {
    "mask": ("Z-Mask, Adv-Mask", "zmask", "#0072b2", "o"),
    "flag": ("Z-Mask, Adv-Flag", "zmask", "#56b4e9", "D"),
    "masknet": ("MaskNet, Adv-Mask", "masknet", "#d55e00", "s"),
}
_RULES: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "zmask-export",
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def beta_figure(network: NetworkReport) -> str | None:
    """Figure 6 or 13: AUC and mIoU or mAP over beta; None without a series."""
    if not network.beta:
        return None
    with mpl.rc_context(_RULES):
        figure, (upper, lower) = _axes(2)
        for name in NAMES:
            aucs = [
                row.detection[name].auc if name in row.detection else None for row in network.beta
            ]
            _line(upper, network.beta, aucs, NAMES[name], *_STYLE.get(name, (_INK, ".")))
            values = [row.quality.get(name) for row in network.beta]
            _line(lower, network.beta, values, NAMES[name], *_STYLE.get(name, (_INK, ".")))
        upper.set_ylabel("detection AUC")
        lower.set_ylabel(network.wording.metric)
        lower.set_xlabel("beta")
        return _svg(figure, f"{network.name}-beta")


def roc_figure(network: NetworkReport) -> str | None:
    """Figure 7: a ROC curve a detector, for the largest patch that is there; None without one."""
    attack = largest(network)
    if attack is None:
        return None
    with mpl.rc_context(_RULES):
        figure, (axes,) = _axes(1, height=4.2)
        for name, corners in network.roc[attack].items():
            fpr, tpr = zip(*corners, strict=True)
            axes.plot(fpr, tpr, color=_STYLE[name][0], label=NAMES[name], clip_on=False)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.6, linestyle=":")
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend()
        return _svg(figure, f"{network.name}-roc")


def alpha_figure(network: NetworkReport) -> str | None:
    """Figure 9: mIoU or mAP and TPR under defense-aware attacks over alpha; None without a series."""
    series = [name for name in _AWARE if network.alpha.get(name)]
    if not series:
        return None
    with mpl.rc_context(_RULES):
        figure, (upper, lower) = _axes(2)
        for name in series:
            label, subject, colour, marker = _AWARE[name]
            rows = network.alpha[name]
            _line(upper, rows, [r.quality.get(subject) for r in rows], label, colour, marker)
            _line(lower, rows, [r.flagged for r in rows], label, colour, marker)
        upper.set_ylabel(network.wording.metric)
        lower.set_ylabel("TPR at the threshold")
        lower.set_xlabel("alpha")
        lower.set_ylim(-0.05, 1.05)
        return _svg(figure, f"{network.name}-alpha")


def largest(network: NetworkReport) -> str | None:
    """The largest patch of the table: L, else M, else S; None without one."""
    return next((name for name in ("L", "M", "S") if name in network.roc), None)


def _axes(count: int, height: float = 2.8) -> tuple[Figure, Sequence[Axes]]:
    """A transparent figure of axes (inches high) one below the other."""
    figure = Figure(figsize=(5.4, height * count), layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.subplots(count, 1, sharex=True, squeeze=False)
    for axes in grid[:, 0]:
        axes.patch.set_alpha(0)
        axes.grid(color=_INK, alpha=0.15, linewidth=0.6)
    return figure, list(grid[:, 0])


def _line(
    axes: Axes,
    rows: Sequence[Row],
    estimates: Sequence[Estimate | None],
    label: str,
    colour: str,
    marker: str,
) -> None:
    """One line with its band of intervals, over the values of the rows; nothing where none is known."""
    points: list[tuple[Any, ...]] = [
        (row.value, estimate.value, *(estimate.interval or (estimate.value, estimate.value)))
        for row, estimate in zip(rows, estimates, strict=True)
        if estimate is not None and estimate.value is not None
    ]
    if not points:
        return
    x, y, low, high = zip(*points, strict=True)
    axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.legend()


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element for a page, the same bytes every time; ids get a prefix, for a page
    has several figures."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    element = buffer.getvalue()
    element = element[element.index("<svg") :].replace(_INK, "currentColor")
    for pattern in (r'(\bid=")', r"(url\(#)", r'(href="#)'):
        element = re.sub(pattern, functools.partial(_prefixed, f"{name}-"), element)
    return element


def _prefixed(prefix: str, match: re.Match[str]) -> str:
    return match[1] + prefix

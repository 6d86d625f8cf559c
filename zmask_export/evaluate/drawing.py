"""SVG drawings for a page: no colours of their own for text and axes, so that they are readable on
light and on dark."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
RULES: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "zmask-export",
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def axes_below(
    count: int, height: float = 2.8, width: float = 5.4
) -> tuple[Figure, Sequence[Axes]]:
    """A transparent figure of axes (inches high and wide) one below the other."""
    figure = Figure(figsize=(width, height * count), layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.subplots(count, 1, sharex=True, squeeze=False)
    for axes in grid[:, 0]:
        axes.patch.set_alpha(0)
        axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    return figure, list(grid[:, 0])


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an element for a page, the same bytes every time; ids get a prefix, for a page
    has several figures."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    element = buffer.getvalue()
    element = element[element.index("<svg") :].replace(INK, "currentColor")
    for pattern in (r'(\bid=")', r"(url\(#)", r'(href="#)'):
        element = re.sub(pattern, functools.partial(_prefixed, f"{name}-"), element)
    return element


def _prefixed(prefix: str, match: re.Match[str]) -> str:
    return match[1] + prefix

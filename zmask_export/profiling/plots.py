"""Drawings of a bundle's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from zmask_export.artifacts.calibration import FitSummary
from zmask_export.evaluate.drawing import INK, RULES, axes_below, to_svg
from zmask_export.profiling.record import Attribution, Case

# Okabe and Ito's palette, told apart by colour-blind readers: mid tones, for light and for dark.
_CLEAN, _PATCHED, _BARE = "#0072b2", "#d55e00", "#8a8a8a"
_CASES = {None: _BARE, "clean": _CLEAN, "attacked": _PATCHED}
PART_COLOURS = {
    "network": "#8a8a8a",
    "zscore": "#56b4e9",
    "cascade": "#0072b2",
    "fusion": "#cc79a7",
    "gate": "#b07800",
    "second_pass": "#d55e00",
    "suppression": "#009e73",
}
BETWEEN = "between nodes"
_BINS = 40
_WIDTH = 4.2
"""Inches: small, so that the letters stay readable on a phone."""


def latency_plot(cases: Sequence[Case]) -> str:
    """Every run of the cases of one batch, with a box from the lower to the upper quartile."""
    with mpl.rc_context(RULES):
        figure, (axes,) = axes_below(1, height=0.6 + 0.5 * len(cases), width=_WIDTH)
        rng = np.random.default_rng(0)
        for row, case in enumerate(cases):
            colour = _CASES[case.frame]
            jitter = rng.uniform(-0.16, 0.16, len(case.rounds_ms))
            axes.scatter(
                case.rounds_ms, row + jitter, s=7, color=colour, alpha=0.45, linewidths=0, zorder=3
            )
            lower, median, upper = np.percentile(case.rounds_ms, [25, 50, 75])
            axes.barh(row, upper - lower, left=lower, height=0.5, color=colour, alpha=0.25)
            axes.plot([median, median], [row - 0.3, row + 0.3], color=colour, linewidth=2)
        axes.set_yticks(range(len(cases)), [case.label for case in cases])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("milliseconds a run")
        axes.grid(visible=False, axis="y")
        return to_svg(figure, f"latency-{cases[0].batch}")


def parts_plot(found: Sequence[Attribution]) -> str:
    """Stacked bars of the parts, with a mark at the measured latency."""
    with mpl.rc_context(RULES):
        figure, (axes,) = axes_below(1, height=1.2 + 0.5 * len(found), width=_WIDTH)
        left = np.zeros(len(found))
        for part, colour in PART_COLOURS.items():
            left = _stack(axes, left, [a.part(part) for a in found], part, colour)
        _stack(axes, left, [a.between_nodes_ms for a in found], BETWEEN, INK, alpha=0.35)
        for row, attribution in enumerate(found):
            at = attribution.measured_ms
            label = "measured" if row == 0 else None
            axes.plot([at, at], [row - 0.38, row + 0.38], color=INK, linewidth=1.4, label=label)
        axes.set_yticks(range(len(found)), [f"{a.frame} frame" for a in found])
        axes.invert_yaxis()
        axes.set_xlabel("milliseconds a run")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return to_svg(figure, "parts")


def _stack(
    axes: Axes, left: Any, values: Sequence[float], label: str, colour: str, alpha: float = 1.0
) -> Any:
    if not any(values):
        return left
    rows = range(len(values))
    name = label.replace("_", " ").replace("zscore", "z-score")
    axes.barh(rows, values, left=left, height=0.5, color=colour, alpha=alpha, label=name)
    return left + np.asarray(values)


def roc_plot(fit: FitSummary) -> str:
    """The ROC curve of the fit's scores, with the point of the chosen threshold."""
    fpr, tpr = roc_corners(fit)
    with mpl.rc_context(RULES):
        figure, (axes,) = axes_below(1, height=3.2, width=_WIDTH)
        axes.plot(fpr, tpr, color=_CLEAN, linewidth=1.6, clip_on=False)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, linestyle=":")
        axes.plot(
            [fit.roc.false_positive_rate], [fit.roc.true_positive_rate],
            "o", color=_PATCHED, clip_on=False, label="at the threshold",
        )  # fmt: skip
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend(loc="lower right")
        return to_svg(figure, "roc")


def roc_corners(fit: FitSummary) -> tuple[list[float], list[float]]:
    """False- and true-positive rates at every threshold between scores, from (0, 0) to (1, 1)."""
    clean, patched = np.sort(fit.clean_scores), np.sort(fit.patched_scores)
    cuts = np.unique(np.concatenate([clean, patched]))[::-1]
    fpr = 1 - np.searchsorted(clean, cuts, side="left") / clean.size
    tpr = 1 - np.searchsorted(patched, cuts, side="left") / patched.size
    return [0.0, *fpr.tolist()], [0.0, *tpr.tolist()]


def scores_plot(fit: FitSummary, threshold: float) -> str:
    """Histograms of the scores of clean and patched images, on a logarithmic axis where they allow it."""
    everything = np.asarray([*fit.clean_scores, *fit.patched_scores, threshold])
    low, high = float(everything.min()), float(everything.max())
    logarithmic = low > 0 and high > 10 * low
    edges = (np.geomspace if logarithmic else np.linspace)(low, high or 1.0, _BINS + 1)
    with mpl.rc_context(RULES):
        figure, (axes,) = axes_below(1, height=3.2, width=_WIDTH)
        for scores, colour, label in (
            (fit.clean_scores, _CLEAN, "clean"),
            (fit.patched_scores, _PATCHED, "patched"),
        ):
            axes.hist(scores, bins=edges.tolist(), color=colour, alpha=0.6, label=label)
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label="threshold")
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xlabel("score d")
        axes.set_ylabel("images")
        axes.legend()
        return to_svg(figure, "scores")

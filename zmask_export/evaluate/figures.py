"""The paper's figures as SVG for a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from zmask_export.evaluate.bootstrap import Estimate
from zmask_export.evaluate.drawing import INK, RULES, axes_below, to_svg
from zmask_export.evaluate.quality import Row
from zmask_export.evaluate.report import NAMES, NetworkReport

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


def beta_figure(network: NetworkReport) -> str | None:
    """Figure 6 or 13: AUC and mIoU or mAP over beta; None without a series."""
    if not network.beta:
        return None
    with mpl.rc_context(RULES):
        figure, (upper, lower) = axes_below(2)
        for name in NAMES:
            aucs = [
                row.detection[name].auc if name in row.detection else None for row in network.beta
            ]
            _line(upper, network.beta, aucs, NAMES[name], *_STYLE.get(name, (INK, ".")))
            values = [row.quality.get(name) for row in network.beta]
            _line(lower, network.beta, values, NAMES[name], *_STYLE.get(name, (INK, ".")))
        upper.set_ylabel("detection AUC")
        lower.set_ylabel(network.wording.metric)
        lower.set_xlabel("beta")
        return to_svg(figure, f"{network.name}-beta")


def roc_figure(network: NetworkReport) -> str | None:
    """Figure 7: a ROC curve a detector, for the largest patch that is there; None without one."""
    attack = largest(network)
    if attack is None:
        return None
    with mpl.rc_context(RULES):
        figure, (axes,) = axes_below(1, height=4.2)
        for name, corners in network.roc[attack].items():
            fpr, tpr = zip(*corners, strict=True)
            axes.plot(fpr, tpr, color=_STYLE[name][0], label=NAMES[name], clip_on=False)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, linestyle=":")
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend()
        return to_svg(figure, f"{network.name}-roc")


def alpha_figure(network: NetworkReport) -> str | None:
    """Figure 9: mIoU or mAP and TPR under defense-aware attacks over alpha; None without a series."""
    series = [name for name in _AWARE if network.alpha.get(name)]
    if not series:
        return None
    with mpl.rc_context(RULES):
        figure, (upper, lower) = axes_below(2)
        for name in series:
            label, subject, colour, marker = _AWARE[name]
            rows = network.alpha[name]
            _line(upper, rows, [r.quality.get(subject) for r in rows], label, colour, marker)
            _line(lower, rows, [r.flagged for r in rows], label, colour, marker)
        upper.set_ylabel(network.wording.metric)
        lower.set_ylabel("TPR at the threshold")
        lower.set_xlabel("alpha")
        lower.set_ylim(-0.05, 1.05)
        return to_svg(figure, f"{network.name}-alpha")


def largest(network: NetworkReport) -> str | None:
    """The largest patch of the table: L, else M, else S; None without one."""
    return next((name for name in ("L", "M", "S") if name in network.roc), None)


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

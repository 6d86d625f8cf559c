"""What a bundle's parity and calibration files say, as parts of its report."""

from __future__ import annotations

from collections.abc import Iterator

from zmask_export.artifacts.calibration import Calibration, FitSummary
from zmask_export.evaluate.page import Figure, Section, Table, Value
from zmask_export.profiling.plots import roc_plot, scores_plot
from zmask_export.verify.report import ParityReport


def quality_sections(parity: ParityReport, calibration: Calibration) -> Iterator[Section]:
    """Parity, calibration and the defense's settings."""
    yield _parity(parity)
    yield from _fit(calibration)
    yield _defense(calibration)


def _parity(parity: ParityReport) -> Section:
    head = ("", "batch", "flag", "score d", "d off by", "mask IoU", "outputs off by", "heatmaps")
    rows = tuple(
        (
            Value(c.image),
            Value(str(c.batch)),
            Value(f"{'yes' if c.flag else 'no'}"),
            Value(f"{c.score:.5g}"),
            Value(f"{c.score_error:.1e}"),
            Value(f"{c.mask_iou:.5f}"),
            Value(f"{c.output_error:.1e}"),
            Value(f"{c.heatmap_error:.1e}"),
        )
        for c in parity.comparisons
    )
    kept = "kept" if not parity.problems else "broken"
    about = (
        f"The graph, as {parity.runner} runs it, beside the literal PyTorch reference when the bundle was "
        f"built: the contract is {kept}. Flags may differ within {parity.band:.1e} of the threshold.",
    )
    limits = parity.tolerances.model_dump(exclude_none=True)
    stated = "Tolerances: " + ", ".join(f"{name} {value:g}" for name, value in limits.items()) + "."
    return Section("Parity", about, Table(head, rows), notes=(stated, *parity.problems))


def _fit(calibration: Calibration) -> Iterator[Section]:
    header = calibration.header
    fit = header.fit
    if fit is None or header.threshold is None:
        yield Section("Calibration", ("The calibration file says nothing of how it was fitted.",))
        return
    rows = [
        ("detection AUC", f"{fit.roc.auc:.4f}"),
        ("true-positive rate", f"{fit.roc.true_positive_rate:.4f}"),
        ("false-positive rate", f"{fit.roc.false_positive_rate:.4f}"),
        ("threshold", f"{header.threshold:.6g}, {fit.roc.rule}"),
        ("mask IoU", f"{fit.mask_iou:.4f}"),
        ("clean pixels covered", f"{fit.clean_masked:.2%}"),
        ("images", f"{fit.roc.negatives} clean, {fit.roc.positives} patched"),
        ("patches", ", ".join(fit.patches)),
        ("range of the deep gate", f"{fit.gate_range[0]:.3f} to {fit.gate_range[1]:.3f}"),
        ("images of the statistics", str(header.images)),
    ]
    table = Table(("", "on the fit's own images"), tuple((Value(a), Value(b)) for a, b in rows))
    about = (
        "How well the score tells patched from clean images, on the images that the fusion block was "
        "fitted on: no blind test.",
    )
    yield Section("Calibration", about, table, _curves(fit, header.threshold))


def _curves(fit: FitSummary, threshold: float) -> tuple[Figure, ...]:
    if not fit.clean_scores or not fit.patched_scores:
        return ()
    return (
        Figure("Scores of clean and patched images.", svg=scores_plot(fit, threshold)),
        Figure("ROC curve of the score.", svg=roc_plot(fit)),
    )


def _defense(calibration: Calibration) -> Section:
    defense = calibration.header.defense
    rows = []
    for branch, taps, kernels in defense.branches():
        sizes = ", ".join(f"{h} x {w}" for h, w in kernels)
        rows.append((Value(branch), Value(", ".join(taps)), Value(sizes)))
    notes = (
        f"Grid {defense.grid[0]} x {defense.grid[1]}, registration {defense.registration}, fill "
        f"{defense.fill}, corners {defense.corners}.",
    )
    return Section("Defense", table=Table(("set", "taps", "kernels"), tuple(rows)), notes=notes)

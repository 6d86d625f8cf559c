"""fit: statistics, images and patches to a finished calibration file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zmask_export.artifacts.calibration import Calibration, FitSummary, RocSummary
from zmask_export.attack import patch as patches
from zmask_export.calibrate import roc
from zmask_export.calibrate.fit import FitSet, FitSettings, collect, fit_fusion
from zmask_export.data.images import ImageSource
from zmask_export.defense import fusion
from zmask_export.defense.zmask import Heatmaps
from zmask_export.drift.martingale import rounded
from zmask_export.evaluate.metrics import mask_iou
from zmask_export.pipeline.network import OpenNetwork
from zmask_export.pipeline.progress import Reporter, Silent

REFITTED = ("shallow_kernels", "deep_kernels", "grid", "registration", "fill", "corners")
"""Fields of the defense that statistics do not depend on: a fit may change them."""
DEAD_GATE = 0.02
"""A deep gate whose range over the fit set is below this does not act."""


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    Attributes:
        settings: Adam, epochs, EOT.
        target_fpr: choose the threshold by this false-positive rate instead of the best cut.

    Raises:
        UsageError: a rate outside [0, 1).
    """

    settings: FitSettings = field(default_factory=FitSettings)
    target_fpr: float | None = None

    def __post_init__(self) -> None:
        if self.target_fpr is not None:
            roc.require_rate(self.target_fpr)


def load_patches(paths: Sequence[Path]) -> list[Tensor]:
    """Patches from files, float32 (3, h, w).

    Raises:
        PatchError: a file cannot be used.
    """
    return [patches.load(path) for path in paths]


def fit(
    opened: OpenNetwork,
    calibration: Calibration,
    images: ImageSource,
    attack: Sequence[tuple[str, Tensor]],
    options: FitOptions | None = None,
    *,
    reporter: Reporter | None = None,
) -> Calibration:
    """Fit the eight fusion parameters and choose the threshold.

    Args:
        opened: the network.
        calibration: statistics of this network.
        images: clean images; each is used clean and with every patch.
        attack: names and patches (3, h, w).
        options: see :class:`FitOptions`.
        reporter: shows progress.

    Returns:
        The calibration with parameters, threshold and a summary.

    Raises:
        DatasetError, ImageError, PatchError, UsageError: see ``collect`` and ``roc``.
    """
    options = options or FitOptions()
    reporter = reporter or Silent()
    defense = calibration.header.defense
    heatmaps = Heatmaps.of(calibration, "deployed")
    frames = images.frames(on_skip=lambda e: reporter.note(f"left out: {e.what}"))
    clean = (frame.image for frame in frames if frame is not None)
    with reporter.bar("heatmaps", len(images.names)) as advance:
        data = collect(
            opened.bare(defense),
            heatmaps,
            clean,
            [patch for _, patch in attack],
            options.settings,
            on_image=advance,
        )
    with reporter.bar("fitting", options.settings.epochs) as advance:
        parameters, loss = fit_fusion(
            data, options.settings, on_epoch=lambda n, value: advance(n, f"loss {value:.4f}")
        )
    summary, threshold = summarise(
        data, parameters, loss, [n for n, _ in attack], options, defense.corners
    )
    low, high = summary.gate_range
    if high - low < DEAD_GATE:
        reporter.note(
            f"The deep gate is nearly constant ({low:.3f} to {high:.3f}): HD acts through the score "
            "alone. Fit on more images or other patches."
        )
    fitted = calibration.with_header(threshold=threshold, fit=summary)
    return Calibration(fitted.header, fitted.mean, fitted.std, parameters.numpy())


def summarise(
    data: FitSet,
    parameters: Tensor,
    loss: float,
    names: Sequence[str],
    options: FitOptions,
    corners: int = 0,
) -> tuple[FitSummary, float]:
    """Scores, threshold and quality of a fit on its own set."""
    with torch.inference_mode():
        gate = fusion.deep_gate(data.deep, parameters)
        soft = fusion.soft_mask(data.shallow, data.deep, parameters)
        scores = fusion.score(data.shallow, data.deep, soft).double().numpy()
    clean, patched = scores[~data.patched], scores[data.patched]
    if options.target_fpr is None:
        cut, rule = roc.best_cut(clean, patched), "largest TPR - FPR"
    else:
        cut = roc.cut_at_fpr(clean, patched, options.target_fpr)
        rule = f"FPR at most {options.target_fpr}"
    covered = fusion.fill_corners(soft > 0.5, corners).numpy()
    target = (data.target > 0.5).numpy()
    flagged = scores > cut.threshold
    ious = [mask_iou(covered[i], target[i]) for i in np.flatnonzero(data.patched)]
    masked = [covered[i].mean() * flagged[i] for i in np.flatnonzero(~data.patched)]
    summary = FitSummary(
        images=len(clean),
        epochs=options.settings.epochs,
        loss=loss,
        mask_iou=float(np.mean(ious)),
        clean_masked=float(np.mean(masked)),
        gate_range=(float(gate.min()), float(gate.max())),
        patches=tuple(names),
        roc=RocSummary(
            auc=roc.auc(clean, patched),
            true_positive_rate=cut.true_positive_rate,
            false_positive_rate=cut.false_positive_rate,
            positives=len(patched),
            negatives=len(clean),
            rule=rule,
        ),
        clean_scores=_rounded(clean),
        patched_scores=_rounded(patched),
    )
    return summary, float(np.float32(cut.threshold))


def _rounded(scores: roc.Scores) -> tuple[float, ...]:
    return tuple(rounded(value) for value in np.sort(scores))

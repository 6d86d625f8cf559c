"""How well a protected engine defends a segmentation network, on labelled images.

Every image is run clean and with a patch at a random place, bare and defended, and once more with the
exact patch covered (the oracle). mIoU counts the pixels outside the patch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from torch import Tensor

from zmask_export.errors import DatasetError
from zmask_export.evaluate import subjects
from zmask_export.evaluate.bootstrap import Estimate, Resamples
from zmask_export.evaluate.cells import Cell, Samples, measure
from zmask_export.evaluate.quality import Clean, Row, row
from zmask_export.runtime.protected import Protected
from zmask_export.spec import Spec

PASSES = 5
"""How often :func:`evaluate` goes over the images."""

LABELS = {
    "clean": ("mIoU clean, bare", 4),
    "clean_defended": ("mIoU clean, defended", 4),
    "attacked": ("mIoU attacked, bare", 4),
    "defended": ("mIoU attacked, defended", 4),
    "oracle": ("mIoU attacked, oracle", 4),
    "recovered": ("recovered of the oracle", 3),
    "auc": ("detection AUC", 4),
    "true_positive_rate": ("TPR at the threshold", 3),
    "false_positive_rate": ("FPR at the threshold", 3),
    "fpr_at_tpr95": ("FPR at TPR 0.95", 3),
    "fpr_at_tpr99": ("FPR at TPR 0.99", 3),
    "mask_iou": ("mask IoU", 3),
    "clean_masked": ("clean pixels covered", 4),
}
"""How the table's numbers are called, and their digits, in the table's order."""


class SegmentationScores(Spec):
    """The table of one patch.

    Attributes:
        images: how many.
        clean: mIoU of the bare network.
        clean_defended: mIoU of the defended one on clean images.
        attacked: mIoU of the bare network on patched images.
        defended: mIoU of the defended one on patched images.
        oracle: mIoU with the exact patch covered by the same fill.
        recovered: (defended - attacked) / (oracle - attacked); None where the oracle wins nothing.
        auc: detection of patched against clean images by d.
        true_positive_rate, false_positive_rate: at the engine's threshold.
        fpr_at_tpr95, fpr_at_tpr99: false-positive rate at the threshold that finds this share.
        mask_iou: mean IoU of covered pixels and patch, over patched images.
        clean_masked: mean share of pixels covered in clean images.
        intervals: bootstrap interval of each of these, lower and upper end; None where undefined.
    """

    images: int
    clean: float | None
    clean_defended: float | None
    attacked: float | None
    defended: float | None
    oracle: float | None
    recovered: float | None
    auc: float | None
    true_positive_rate: float | None
    false_positive_rate: float | None
    fpr_at_tpr95: float | None
    fpr_at_tpr99: float | None
    mask_iou: float | None
    clean_masked: float | None
    intervals: dict[str, tuple[float, float] | None]

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """Label, number and interval of every number, as text; a dash for what is not defined."""
        for name, (label, digits) in LABELS.items():
            number, ends = getattr(self, name), self.intervals.get(name)
            interval = "" if ends is None else f"({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"
            yield label, "-" if number is None else f"{number:.{digits}f}", interval


def evaluate(
    engine: Protected,
    samples: Samples,
    patch: Tensor,
    *,
    seed: int = 0,
    resamples: int = 1000,
    on_image: Callable[[int], None] | None = None,
) -> SegmentationScores:
    """Fill the table for one patch.

    Args:
        engine: a loaded bundle with policy ``gated`` or ``mask``.
        samples: labelled images of the engine's size; read one at a time, :data:`PASSES` times.
        patch: (3, h, w) in [0, 1].
        seed: of the places and of the bootstrap.
        resamples: of the bootstrap.
        on_image: told the number of images done, over all passes.

    Raises:
        PatchError: the patch is larger than the images.
        DatasetError: not a single image.
    """
    if not len(samples):
        raise DatasetError("There is no image to evaluate on.", fix="Give a split with images.")
    network = subjects.EngineNetwork(engine)
    bare, defended = subjects.undefended(network), subjects.defended(network)
    passes = itertools.count()

    def run(subject: subjects.Subject, attack: Tensor | None) -> Cell:
        start = next(passes) * len(samples)
        return measure(
            subject,
            samples,
            len(engine.manifest.classes),
            attack,
            seed=seed,
            on_image=None if on_image is None else lambda done: on_image(start + done),
        )

    clean = Clean(
        {"none": run(bare, None), "zmask": run(defended, None)},
        network.threshold,
        Resamples(len(samples), resamples, seed),
    )
    attacked = {
        "none": run(bare, patch),
        "zmask": run(defended, patch),
        "oracle": run(subjects.oracle(network), patch),
    }
    return _scores(row("None", clean.cells, clean), row("patch", attacked, clean))


def _scores(clean: Row, attacked: Row) -> SegmentationScores:
    detection = attacked.detection["zmask"]
    estimates: dict[str, Estimate | None] = {
        "clean": clean.miou["none"],
        "clean_defended": clean.miou["zmask"],
        "attacked": attacked.miou["none"],
        "defended": attacked.miou["zmask"],
        "oracle": attacked.miou["oracle"],
        "recovered": attacked.recovered,
        "auc": detection.auc,
        "true_positive_rate": attacked.flagged,
        "false_positive_rate": clean.flagged,
        "fpr_at_tpr95": detection.fpr_at_tpr95,
        "fpr_at_tpr99": detection.fpr_at_tpr99,
        "mask_iou": attacked.mask_iou,
        "clean_masked": clean.covered,
    }
    known = {name: e for name, e in estimates.items() if e is not None}
    return SegmentationScores(
        images=clean.miou["none"].images,
        **{name: e.value for name, e in known.items()},
        intervals={name: e.interval for name, e in known.items()},
    )

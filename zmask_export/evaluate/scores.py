"""How well a protected engine defends its network under one patch, on labelled images.

Every image is run clean and with a patch at a random place, bare and defended, and once more with the
exact patch covered (the oracle).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from zmask_export import spec
from zmask_export.errors import DatasetError
from zmask_export.evaluate import subjects
from zmask_export.evaluate.bootstrap import Estimate, Resamples
from zmask_export.evaluate.cells import Cell, Judged, join, judge
from zmask_export.evaluate.quality import Clean, Row, lost, row
from zmask_export.evaluate.task import WORDING, Samples, Task
from zmask_export.runtime.protected import Protected
from zmask_export.spec import Spec

PASSES = 5
"""How often :func:`evaluate` goes over the images."""

Labels = Mapping[str, tuple[str, int]]

# Number to its label, which row it stands in, and of which subject.
_RUNS = {
    "clean": ("clean, bare", "clean", "none"),
    "clean_defended": ("clean, defended", "clean", "zmask"),
    "attacked": ("attacked, bare", "patch", "none"),
    "defended": ("attacked, defended", "patch", "zmask"),
    "oracle": ("attacked, oracle", "patch", "oracle"),
}
_RECOVERED: Labels = {"recovered": ("recovered of the oracle", 3)}
_DEFENSE: Labels = {
    "auc": ("detection AUC", 4),
    "true_positive_rate": ("TPR at the threshold", 3),
    "false_positive_rate": ("FPR at the threshold", 3),
    "fpr_at_tpr95": ("FPR at TPR 0.95", 3),
    "fpr_at_tpr99": ("FPR at TPR 0.99", 3),
    "mask_iou": ("mask IoU", 3),
    "clean_masked": ("clean pixels covered", 4),
}


def _run_labels(metric: str, suffix: str = "") -> Labels:
    return {f"{name}{suffix}": (f"{metric} {label}", 4) for name, (label, _, _) in _RUNS.items()}


class Scores(Spec):
    """The table of one patch, whatever the task; None is what is not defined.

    Attributes:
        task: which.
        labels: how the table's numbers are called, and their digits, in the table's order.
        images: how many.
        clean: main metric of the bare network (mIoU or mAP@0.5).
        clean_defended: of the defended one on clean images.
        attacked: of the bare network on patched images.
        defended: of the defended one on patched images.
        oracle: with the exact patch covered by the same fill.
        recovered: (defended - attacked) / (oracle - attacked); None where the oracle wins nothing.
        auc: detection of patched against clean images by d.
        true_positive_rate, false_positive_rate: at the engine's threshold.
        fpr_at_tpr95, fpr_at_tpr99: false-positive rate at the threshold that finds this share.
        mask_iou: mean IoU of covered pixels and patch, over patched images.
        clean_masked: mean share of pixels covered in clean images.
        intervals: bootstrap interval of each of these, lower and upper end; None where undefined.
    """

    task: ClassVar[spec.Task]
    labels: ClassVar[Labels]

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

    @classmethod
    def of(cls, clean: Clean, attacked: Mapping[str, Cell]) -> Scores:
        """The table from its cells.

        Args:
            clean: ``none`` and ``zmask`` on clean images.
            attacked: ``none``, ``zmask`` and ``oracle`` on the same images with the patch.
        """
        rows = {"clean": row("None", clean.cells, clean), "patch": row("patch", attacked, clean)}
        estimates = {**_estimates(rows), **cls._own(rows, clean, attacked)}
        known = {name: e for name in cls.labels if (e := estimates[name]) is not None}
        return cls(
            images=clean.resamples.images,
            **{name: estimate.value for name, estimate in known.items()},
            intervals={name: estimate.interval for name, estimate in known.items()},
        )

    @classmethod
    def _own(
        cls, rows: Mapping[str, Row], clean: Clean, attacked: Mapping[str, Cell]
    ) -> Mapping[str, Estimate]:
        """Numbers of this task alone."""
        return {}

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """Label, number and interval of every number, as text; a dash for what is not defined."""
        for name, (label, digits) in self.labels.items():
            number, ends = getattr(self, name), self.intervals.get(name)
            interval = "" if ends is None else f"({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"
            yield label, "-" if number is None else f"{number:.{digits}f}", interval


class SegmentationScores(Scores):
    """The table of a network that segments."""

    task: ClassVar[spec.Task] = "segmentation"
    labels: ClassVar[Labels] = {
        **_run_labels(WORDING["segmentation"].metric), **_RECOVERED, **_DEFENSE,
    }  # fmt: skip


class DetectionScores(Scores):
    """The table of a network that detects objects.

    Attributes:
        clean_lost: share of the clean mAP@0.5 that the defense costs on clean images.
        taken: share of the clean mAP@0.5 that the attack takes from the bare network.
        clean_50_95, clean_defended_50_95, attacked_50_95, defended_50_95, oracle_50_95: mAP@[.5:.95].
    """

    task: ClassVar[spec.Task] = "detection"
    labels: ClassVar[Labels] = {
        **_run_labels(WORDING["detection"].metric),
        **_RECOVERED,
        "clean_lost": ("clean mAP lost, share", 4),
        "taken": ("mAP taken, share", 4),
        **_run_labels("mAP@[.5:.95]", "_50_95"),
        **_DEFENSE,
    }

    clean_lost: float | None
    taken: float | None
    clean_50_95: float | None
    clean_defended_50_95: float | None
    attacked_50_95: float | None
    defended_50_95: float | None
    oracle_50_95: float | None

    @classmethod
    def _own(
        cls, rows: Mapping[str, Row], clean: Clean, attacked: Mapping[str, Cell]
    ) -> Mapping[str, Estimate]:
        bare, draw = clean.cells["none"].record, clean.resamples
        after = {"clean_lost": clean.cells["zmask"].record, "taken": attacked["none"].record}
        strict = {
            f"{name}_50_95": rows[place].map_50_95[subject]
            for name, (_, place, subject) in _RUNS.items()
        }
        return strict | {
            n: lost(bare, record, draw) for n, record in after.items() if bare and record
        }


def evaluate(
    engine: Protected,
    samples: Samples[Any],
    task: Task[Any, Any],
    patch: Tensor,
    *,
    seed: int = 0,
    resamples: int = 1000,
    on_image: Callable[[int], None] | None = None,
) -> Scores:
    """Fill the table for one patch.

    Args:
        engine: a loaded bundle with policy ``gated`` or ``mask``.
        samples: labelled images of the engine's size; read one at a time, :data:`PASSES` times.
        task: the engine's.
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
    judged = judge_passes(engine, samples, task, patch, seed=seed, on_image=on_image)
    return table(judged, task, engine.manifest.threshold, seed=seed, resamples=resamples)


Passes = Mapping[str, Sequence[Judged]]
"""Pass, as the table calls its number, to the images in their order."""


def judge_passes(
    engine: Protected,
    samples: Samples[Any],
    task: Task[Any, Any],
    patch: Tensor,
    *,
    seed: int,
    picked: Sequence[int] | None = None,
    on_image: Callable[[int], None] | None = None,
) -> dict[str, list[Judged]]:
    """Run the :data:`PASSES` over all images, or over those of the indices ``picked``.

    Args: see :func:`evaluate`.
    """
    network = subjects.EngineNetwork(engine)
    by_name = {
        "none": subjects.undefended(network),
        "zmask": subjects.defended(network),
        "oracle": subjects.oracle(network),
    }
    count = len(samples if picked is None else picked)
    judged = {}
    for number, (name, (_, place, subject)) in enumerate(_RUNS.items()):
        judged[name] = judge(
            by_name[subject],
            samples,
            task,
            None if place == "clean" else patch,
            seed=seed,
            picked=picked,
            on_image=None if on_image is None else _after(number * count, on_image),
        )
    return judged


def table(
    judged: Passes, task: Task[Any, Any], threshold: float, *, seed: int, resamples: int
) -> Scores:
    """The table of images that were judged.

    Args:
        judged: of :func:`judge_passes`.
        task: the engine's.
        threshold: lambda0.
        seed, resamples: of the bootstrap.
    """
    cells: dict[str, dict[str, Cell]] = {"clean": {}, "patch": {}}
    for name, (_, place, subject) in _RUNS.items():
        cells[place][subject] = join(task, judged[name])
    images = len(judged["clean"])
    clean = Clean(cells["clean"], threshold, Resamples(images, resamples, seed))
    kind = DetectionScores if task.name == "detection" else SegmentationScores
    return kind.of(clean, cells["patch"])


def _after(start: int, on_image: Callable[[int], None]) -> Callable[[int], None]:
    return lambda done: on_image(start + done)


def _estimates(rows: Mapping[str, Row]) -> dict[str, Estimate | None]:
    """Numbers of every task."""
    clean, patched = rows["clean"], rows["patch"]
    detection = patched.detection["zmask"]
    return {
        **{name: rows[place].quality[subject] for name, (_, place, subject) in _RUNS.items()},
        "recovered": patched.recovered,
        "auc": detection.auc,
        "true_positive_rate": patched.flagged,
        "false_positive_rate": clean.flagged,
        "fpr_at_tpr95": detection.fpr_at_tpr95,
        "fpr_at_tpr99": detection.fpr_at_tpr99,
        "mask_iou": patched.mask_iou,
        "clean_masked": clean.covered,
    }

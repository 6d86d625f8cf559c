"""The result of a study: every number with its interval, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from zmask_export.evaluate.bootstrap import Estimate
from zmask_export.evaluate.plan import LeftOut
from zmask_export.evaluate.quality import Row
from zmask_export.evaluate.task import WORDING, Wording
from zmask_export.spec import Size, Spec, Task

SCHEMA_VERSION = 2
"""2 has ``task``, ``map_50`` and ``map_50_95``, which a report of version 1 may lack."""

NAMES = {
    "zmask": "Z-Mask",
    "masknet": "MaskNet",
    "lgs": "LGS",
    "none": "none",
    "oracle": "oracle",
    "hn": "HN",
    "fpda": "FPDA",
    "fpda+": "FPDA, positive part",
}
"""How subjects and detectors are written, in the order of their columns."""

WEAK_BETA = 0.7
"""Patches of at most this beta over-activate little: detectors are compared on them."""
FALL = 0.03
"""A defense-aware patch that costs more mIoU or mAP than this below the plain one is named."""


class NetworkReport(Spec):
    """One network's part.

    Attributes:
        name: in the study.
        model: registered name.
        task: what it predicts, which says whether rows hold mIoU or mAP.
        source: "bundle" or "reference".
        runner: what ran it, such as ``onnxruntime-cpu``.
        threshold: lambda0.
        input_size: (H, W).
        images: how many.
        table: Table 4: None, Rand, S, M, L, as far as they are there.
        beta: rows of the over-activation series (Figure 6, of detectors 13).
        alpha: series ("mask", "flag", "masknet") to its rows (Figure 9).
        roc: row of the table to detector to corners of its ROC curve, (FPR, TPR) (Figure 7).
        left_out: what the study names and was not there.
    """

    name: str
    model: str
    task: Task = "segmentation"
    source: str
    runner: str
    threshold: float
    input_size: Size
    images: int
    table: tuple[Row, ...]
    beta: tuple[Row, ...]
    alpha: dict[str, tuple[Row, ...]]
    roc: dict[str, dict[str, tuple[tuple[float, float], ...]]]
    left_out: tuple[LeftOut, ...]

    @property
    def wording(self) -> Wording:
        """How to speak of its numbers."""
        return WORDING[self.task]


class StudyReport(Spec):
    """The content of ``report.json``.

    Attributes:
        schema_version: of this form.
        tool_version: of this package.
        about: the study's own line.
        dataset: name of the data set's folder.
        split: of the data set.
        seed: of places and bootstrap.
        resamples: of the bootstrap.
        quick: whether it was cut short to show that everything runs.
        networks: those that were measured.
        left_out: networks that were not there.
        findings: sentences that follow from the numbers.
    """

    schema_version: int
    tool_version: str
    about: str
    dataset: str
    split: str
    seed: int
    resamples: int
    quick: bool
    networks: tuple[NetworkReport, ...]
    left_out: tuple[LeftOut, ...]
    findings: tuple[str, ...]

    def summary(self) -> Iterator[str]:
        """The table's mIoU or mAP@0.5, a line a row, then what was found and what was left out."""
        for network in self.networks:
            for row in network.table:
                found = row.quality
                shown = ", ".join(f"{NAMES[n]} {text(found[n])}" for n in NAMES if n in found)
                yield f"{network.name}, {row.attack}: {shown}"
        yield from self.findings
        for network in self.networks:
            yield from (f"left out: {network.name}: {o.what}: {o.why}" for o in network.left_out)
        yield from (f"left out: {o.what}: {o.why}" for o in self.left_out)


def findings(network: NetworkReport) -> Iterator[str]:
    """What the numbers of one network say of the claims that are made for Z-Mask."""
    yield from _against_rivals(network)
    yield from _weak_patches(network)
    yield from _aware(network)


def _against_rivals(network: NetworkReport) -> Iterator[str]:
    metric = network.wording.metric
    rivals = [r for r in ("masknet", "lgs") if any(r in row.quality for row in network.table)]
    behind = [
        f"{NAMES[rival]} under {row.attack} ({text(row.quality[rival])} against "
        f"{text(row.quality['zmask'])})"
        for row in network.table
        for rival in rivals
        if row.attack in ("S", "M", "L")
        and _value(row.quality, rival) > _value(row.quality, "zmask")
    ]
    compared = [
        row.attack
        for row in network.table
        if row.attack in ("S", "M", "L") and not math.isnan(_value(row.quality, "zmask"))
    ]
    if not rivals or not compared:
        return
    if behind:
        yield f"{network.name}: Z-Mask has a lower {metric} than {', '.join(behind)}."
    else:
        names = " and ".join(NAMES[r] for r in rivals)
        yield (
            f"{network.name}: Z-Mask's {metric} is at or above that of {names} under "
            f"{', '.join(compared)} patches."
        )


def _weak_patches(network: NetworkReport) -> Iterator[str]:
    weak = [row for row in network.beta if row.value is not None and row.value <= WEAK_BETA]
    means = {}
    for name in NAMES:
        found = [row.detection[name].auc.value for row in weak if name in row.detection]
        known = [value for value in found if value is not None]
        if known:
            means[name] = sum(known) / len(known)
    if means:
        listed = ", ".join(f"{NAMES[name]} {value:.3f}" for name, value in means.items())
        yield f"{network.name}: mean AUC over {len(weak)} patches of beta up to {WEAK_BETA}: {listed}."


def fallen(network: NetworkReport) -> Iterator[tuple[str, Row, tuple[Row, ...]]]:
    """Series of aware attacks, the plain attack's row, and the rows with more than FALL below it."""
    for series in ("mask", "flag"):
        rows = network.alpha.get(series, ())
        plain = next((row for row in rows if row.value == 1.0), None)
        if plain is None:
            plain = next((row for row in network.table if row.attack == "L"), None)
        if not rows or plain is None or math.isnan(_value(plain.quality, "zmask")):
            continue
        level = _value(plain.quality, "zmask") - FALL
        yield series, plain, tuple(row for row in rows if _value(row.quality, "zmask") < level)


def worst(network: NetworkReport) -> Row | None:
    """The fallen row of the lowest defended mIoU or mAP; None where none fell."""
    rows = [row for _, _, below in fallen(network) for row in below]
    return min(rows, key=lambda row: _value(row.quality, "zmask"), default=None)


def _aware(network: NetworkReport) -> Iterator[str]:
    metric = network.wording.metric
    for series, plain, below in fallen(network):
        label, level = f"Adv-{series.capitalize()}", text(plain.quality["zmask"])
        if below:
            listed = ", ".join(f"{r.value} ({text(r.quality['zmask'])})" for r in below)
            yield (
                f"{network.name}: under {label} the defended {metric} falls more than {FALL} below the "
                f"plain attack's {level} at alpha {listed}."
            )
        else:
            yield (
                f"{network.name}: at no alpha of {label} does the defended {metric} fall more than "
                f"{FALL} below the plain attack's {level}."
            )


def text(estimate: Estimate | None, digits: int = 3) -> str:
    """The value, rounded; a dash where it is not defined."""
    if estimate is None or estimate.value is None:
        return "-"
    return f"{estimate.value:.{digits}f}"


def _value(estimates: Mapping[str, Estimate], name: str) -> float:
    value = estimates[name].value if name in estimates else None
    # NaN loses every comparison: what was not measured is never called better or worse.
    return math.nan if value is None else value

"""The pages of a study and of a single evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from zmask_export.evaluate import figures
from zmask_export.evaluate.bootstrap import Estimate
from zmask_export.evaluate.page import Figure, Page, Section, Table, Value, value
from zmask_export.evaluate.plan import LeftOut
from zmask_export.evaluate.quality import Row
from zmask_export.evaluate.report import NAMES, NetworkReport, StudyReport
from zmask_export.evaluate.scores import Scores
from zmask_export.evaluate.task import WORDING

_DEFENSES = ("zmask", "masknet", "lgs", "none")
_ORDER = tuple(NAMES)
_ABOUT_DETECTION = (
    "How well each score tells patched from clean images. HN and FPDA read one layer's activations."
)
_ABOUT_MASK = (
    "Flagged: share of images above the calibrated threshold; for clean images the false-positive "
    "rate. Covered: mean share of pixels. Recovered: (defended - attacked) / (oracle - attacked)."
)
_ABOUT_TABLE = (
    "{} The oracle covers the exact patch in the defense's colour. Small print: "
    "95 % bootstrap interval over images, and their number. The best of the defenses is marked."
)


def study_page(report: StudyReport, examples: Mapping[str, tuple[Figure, ...]]) -> Page:
    """The page of a study.

    Args:
        report: its numbers.
        examples: network to its pictures.
    """
    facts = [
        ("Data", f"{report.dataset}, {report.split}"),
        ("Seed", str(report.seed)),
        ("Resamples", str(report.resamples)),
        ("Written by", f"zmask-export {report.tool_version}"),
    ]
    if report.quick:
        facts.append(("Quick", "cut short to show that everything runs; the numbers mean little"))
    sections = [Section("What follows", notes=report.findings)] if report.findings else []
    for network in report.networks:
        sections += _network(network, examples.get(network.name, ()))
    if report.left_out:
        sections.append(Section("Networks left out", notes=_named(report.left_out)))
    return Page(report.about, tuple(facts), tuple(sections))


def scores_page(title: str, scores: Scores) -> Page:
    """The page of one bundle under one patch."""
    rows = [(Value(label), Value(number, interval)) for label, number, interval in scores.lines()]
    table = Table(("", "value"), tuple(rows))
    about = f"{WORDING[scores.task].about} Small print: 95 % bootstrap interval over images."
    section = Section("Bundle and patch", (about,), table)
    return Page(title, (("Images", str(scores.images)),), (section,))


def _network(network: NetworkReport, examples: tuple[Figure, ...]) -> Iterator[Section]:
    words = network.wording
    source = f"{network.source}, {network.runner}"
    height, width = network.input_size
    about = (
        f"{network.model} ({source}), {height} x {width}, {network.images} images, threshold "
        f"{network.threshold:.5g}.",
        _ABOUT_TABLE.format(words.about),
    )
    yield Section(
        f"{network.name}: {words.table}",
        about,
        _quality_table([(row.attack, row.quality) for row in network.table]),
        figures=examples,
    )
    strict = [(row.attack, row.map_50_95) for row in network.table]
    if any(found for _, found in strict):
        yield Section(f"{network.name}: mAP@[.5:.95]", table=_quality_table(strict))
    if any(row.detection for row in network.table):
        yield Section(
            f"{network.name}: detection", (_ABOUT_DETECTION,), _detection_table(network.table)
        )
    yield Section(f"{network.name}: mask", (_ABOUT_MASK,), _mask_table(network.table))
    aware = tuple(row for rows in network.alpha.values() for row in rows)
    over_beta = f"detection and {words.metric} over beta ({words.beta})"
    drawn = (
        (over_beta, figures.beta_figure(network), network.beta),
        ("defense-aware attacks over alpha (Figure 9)", figures.alpha_figure(network), aware),
    )
    for title, svg, rows in drawn:
        if svg is not None:
            figure = Figure("Bands: 95 % bootstrap intervals.", svg=svg)
            yield Section(
                f"{network.name}: {title}",
                table=_series_table(rows, words.metric),
                figures=(figure,),
            )
    curves = figures.roc_figure(network)
    if curves is not None:
        figure = Figure(f"{figures.largest(network)} patch against clean images.", svg=curves)
        yield Section(f"{network.name}: ROC curves (Figure 7)", figures=(figure,))
    if network.left_out:
        yield Section(f"{network.name}: left out", notes=_named(network.left_out))


def _quality_table(rows: Sequence[tuple[str, Mapping[str, Estimate]]]) -> Table:
    """Attacks and what every subject reached under them."""
    defenses = [n for n in _DEFENSES if any(n in found for _, found in rows)]
    body = []
    for attack, found in rows:
        ranks = {name: _rank(found.get(name)) for name in defenses}
        best = max(ranks.values())
        entries = [value(found.get(n), best=ranks[n] == best) for n in defenses]
        body.append((Value(attack), *entries, value(found.get("oracle"))))
    return Table(("Patch", *(NAMES[n] for n in (*defenses, "oracle"))), tuple(body))


def _detection_table(rows: Sequence[Row]) -> Table:
    body = [
        (
            Value(row.attack),
            Value(NAMES[name]),
            *(value(e) for e in (found.auc, found.fpr_at_tpr95, found.fpr_at_tpr99)),
        )
        for row in rows
        for name, found in sorted(row.detection.items(), key=lambda item: _ORDER.index(item[0]))
    ]
    return Table(("Patch", "Detector", "AUC", "FPR at TPR 0.95", "FPR at TPR 0.99"), tuple(body))


def _mask_table(rows: Sequence[Row]) -> Table:
    body = [
        (
            Value(row.attack),
            value(row.flagged),
            value(row.mask_iou),
            value(row.covered, 4),
            value(row.recovered),
        )
        for row in rows
    ]
    return Table(("Patch", "Flagged", "Mask IoU", "Covered", "Recovered"), tuple(body))


def _series_table(rows: Sequence[Row], metric: str) -> Table:
    names = [n for n in _DEFENSES if any(n in row.quality for row in rows)]
    detectors = [n for n in NAMES if any(n in row.detection for row in rows)]
    head = (
        "Patch",
        *(f"{NAMES[n]} {metric}" for n in names),
        *(f"{NAMES[n]} AUC" for n in detectors),
    )
    body = []
    for row in rows:
        found = [row.detection.get(n) for n in detectors]
        entries = [value(row.quality.get(n)) for n in names]
        entries += [value(None if d is None else d.auc) for d in found]
        entries.append(value(row.flagged))
        body.append((Value(row.attack), *entries))
    return Table((*head, "Flagged"), tuple(body))


def _rank(estimate: Estimate | None) -> float:
    return -1.0 if estimate is None or estimate.value is None else estimate.value


def _named(items: Sequence[LeftOut]) -> tuple[str, ...]:
    return tuple(f"{item.what}: {item.why}" for item in items)

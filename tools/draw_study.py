"""Write a study's tables and figures as a page that a repository can hold: numbers alone, no camera image.

    python tools/draw_study.py --report study/report.json --out docs/camvid

Copies ``report.json`` and writes ``README.md`` and the figures as SVG beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from zmask_export.evaluate import figures
from zmask_export.evaluate.bootstrap import Estimate
from zmask_export.evaluate.quality import Row
from zmask_export.evaluate.report import NAMES, NetworkReport, StudyReport

DEFENSES = ("zmask", "masknet", "lgs", "none", "oracle")
DETECTORS = ("zmask", "hn", "fpda", "fpda+")
FIGURES = {
    "beta": ("Detection and the task's metric over beta (Figure 6)", figures.beta_figure),
    "roc": ("ROC (Figure 7)", figures.roc_figure),
    "alpha": ("Defense-aware attacks over alpha (Figure 9)", figures.alpha_figure),
}


def number(estimate: Estimate | None) -> str:
    """Value and interval, or a dash."""
    if estimate is None or estimate.value is None:
        return "-"
    if estimate.interval is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.interval[0]:.3f}-{estimate.interval[1]:.3f})"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(titles)} |"
    yield f"|{' --- |' * len(titles)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def estimates(
    rows: Sequence[Row], names: Sequence[str], read: Callable[[Row, str], Estimate | None]
) -> Iterator[str]:
    """A table of one number a row and subject."""
    known = [name for name in names if any(read(row, name) is not None for row in rows)]
    cells = [[row.attack, *(number(read(row, name)) for name in known)] for row in rows]
    yield from table(["", *(NAMES[name] for name in known)], cells)


def section(network: NetworkReport, drawn: Sequence[str]) -> Iterator[str]:
    """One network: Table 4, masks, detection, figures, series."""
    metric = network.wording.metric
    yield f"## {network.name}"
    yield ""
    yield (
        f"{network.model} at {network.input_size[0]} x {network.input_size[1]}, {network.images} "
        f"images, {network.source} ({network.runner}), threshold {network.threshold:.4g}. {metric}:"
    )
    yield ""
    yield from estimates(network.table, DEFENSES, lambda row, name: row.quality.get(name))
    if any(row.map_50_95 for row in network.table):
        yield "mAP@[.5:.95]:"
        yield ""
        yield from estimates(network.table, DEFENSES, lambda row, name: row.map_50_95.get(name))
    titles = ("", "mask IoU", "recovered", "flagged", "covered")
    masks = [
        [
            row.attack,
            *map(number, (row.mask_iou, row.recovered, row.flagged, row.covered)),
        ]
        for row in network.table
    ]
    yield from table(titles, masks)
    rows = [row for row in (*network.table, *network.beta) if row.detection]
    yield "Detection AUC:"
    yield ""
    yield from estimates(
        rows,
        DETECTORS,
        lambda row, name: row.detection[name].auc if name in row.detection else None,
    )
    for name in drawn:
        yield f"![{network.name}: {FIGURES[name][0]}]({network.name}-{name}.svg)"
        yield ""
    for rows in network.alpha.values():
        cells = []
        for row in rows:
            bare, defended = row.quality.get("none"), row.quality.get("zmask")
            cells.append([row.attack, number(bare), number(defended), number(row.flagged)])
        yield from table(("", f"{metric} bare", f"{metric} defended", "flagged"), cells)


def page(report: StudyReport, drawn: dict[str, list[str]]) -> str:
    """The whole page."""
    lines = [f"# {report.about}", ""]
    lines += [
        f"Split {report.split} of {report.dataset}. 95 % bootstrap intervals over images. mIoU counts the "
        "pixels outside the patch, mAP the objects that it does not cover; recovered is "
        "(defended - attacked) / (oracle - attacked).",
        "",
    ]
    lines += [f"- {finding}" for finding in report.findings]
    lines += [""] if report.findings else []
    for network in report.networks:
        lines += section(network, drawn[network.name])
    left_out = [
        f"- {network.name}: {item.what}: {item.why}"
        for network in report.networks
        for item in network.left_out
    ]
    if left_out:
        lines += ["Left out:", "", *left_out, ""]
    return "\n".join(lines).rstrip() + "\n"


@click.command()
@click.option("--report", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
def main(report: Path, out: Path) -> None:
    """Write page, figures and numbers."""
    text = report.read_text("utf-8")
    study = StudyReport.model_validate_json(text)
    out.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, list[str]] = {}
    for network in study.networks:
        drawn[network.name] = []
        for name, (_, draw) in FIGURES.items():
            svg = draw(network)
            if svg is not None:
                # An image takes no text colour from its page: a grey for light and dark ones.
                svg = svg.replace("currentColor", "#767676")
                (out / f"{network.name}-{name}.svg").write_text(svg, "utf-8")
                drawn[network.name].append(name)
    (out / "report.json").write_text(text, "utf-8")
    (out / "README.md").write_text(page(study, drawn), "utf-8")


if __name__ == "__main__":
    main()

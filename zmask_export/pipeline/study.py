"""evaluate --study: the paper's table and figures for every network of a study, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from zmask_export import __version__
from zmask_export.artifacts.files import recover, require_writable, sha256_file, write_text
from zmask_export.attack import patch as patches
from zmask_export.data.sampling import spread
from zmask_export.errors import UsageError
from zmask_export.evaluate import cells as cell_files
from zmask_export.evaluate import detection
from zmask_export.evaluate.bootstrap import Resamples
from zmask_export.evaluate.cells import Cell
from zmask_export.evaluate.examples import example
from zmask_export.evaluate.figures import largest
from zmask_export.evaluate.page import Figure, render
from zmask_export.evaluate.pages import study_page
from zmask_export.evaluate.plan import Attack, LeftOut, attacks
from zmask_export.evaluate.quality import Clean, Row, row
from zmask_export.evaluate.report import (
    SCHEMA_VERSION,
    NetworkReport,
    StudyReport,
    findings,
    worst,
)
from zmask_export.evaluate.study import TABLE_ROWS, NetworkStudy, Study, load_study
from zmask_export.evaluate.subjects import Subject
from zmask_export.pipeline.evaluate_data import LabelledData, open_labelled
from zmask_export.pipeline.progress import Advance, Reporter, Silent
from zmask_export.pipeline.study_bundles import build_absent
from zmask_export.pipeline.study_network import StudyNetwork, absent, open_study_network

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"


def run_study(
    path: Path,
    out: Path,
    *,
    data: Path | None = None,
    limit: int | None = None,
    reference: bool = False,
    quick: bool = False,
    build: bool = False,
    reporter: Reporter | None = None,
) -> StudyReport:
    """Measure everything that a study names and that is there, and write both reports.

    Cells that ``out`` holds already, of the same settings and files, are not measured again; a study
    that was interrupted ends with the same bytes.

    Args:
        path: the study's YAML file.
        out: folder for cells, ``report.json`` and ``report.html``.
        data: the data set's folder, in the place of the one in the file.
        quick: few images, resamples and points of the series.
        build: build the bundles that are not there.
        reporter: shows progress.

    Raises:
        UsageError: no data set, or not one of the networks is there.
        InputError: a file is damaged, or files do not belong together (named).
        OutputError: ``out`` cannot be written.
        ZMaskError: with ``build``, of the build that failed.
    """
    reporter = reporter or Silent()
    study = load_study(path)
    if limit is not None:
        study = study.model_copy(update={"limit": limit})
    if quick:
        study = study.quick()
    root = data or study.data
    if root is None:
        raise UsageError("The study names no data set.", fix="Add data: to it, or give --data.")
    for name in (REPORT_JSON, REPORT_HTML):
        require_writable(out / name)
    if build:
        build_absent(study, reporter)
    networks, left_out, examples = [], [], {}
    for name, network in study.networks.items():
        why = absent(network, reference=reference)
        if why is not None:
            left_out.append(LeftOut(what=name, why=why))
            reporter.note(f"left out: {name}: {why}")
            continue
        run = _Run(name, network, study, root, out / "cells" / name, reference, reporter)
        networks.append(run.report())
        examples[name] = run.examples(networks[-1])
    if not networks:
        raise UsageError(
            f"Not one network of the study is there ({left_out[0].what}: {left_out[0].why}).",
            fix="Build the bundles first, or correct the paths.",
        )
    report = StudyReport(
        schema_version=SCHEMA_VERSION,
        tool_version=__version__,
        about=study.about,
        dataset=root.resolve().name,
        split=study.split,
        seed=study.seed,
        resamples=study.resamples,
        quick=quick,
        networks=tuple(networks),
        left_out=tuple(left_out),
        findings=tuple(line for network in networks for line in findings(network)),
    )
    write_text(out / REPORT_JSON, report.model_dump_json(indent=1) + "\n")
    write_text(out / REPORT_HTML, render(study_page(report, examples)))
    return report


class _Run:
    """One network of a study, from opening it to its report."""

    def __init__(
        self,
        name: str,
        network: NetworkStudy,
        study: Study,
        root: Path,
        folder: Path,
        reference: bool,
        reporter: Reporter,
    ) -> None:
        self.name, self.study, self.folder, self.reporter = name, study, folder, reporter
        self.opened: StudyNetwork = open_study_network(
            network, root, reference=reference, reporter=reporter
        )
        self.data: LabelledData = open_labelled(
            root, study.split, task=self.opened.task, classes=len(self.opened.classes),
            size=self.opened.input_size, limit=study.limit,
        )  # fmt: skip
        self.samples = self.data.samples
        self.images = self.data.fingerprint()
        self.attacks, self.left_out = attacks(network)
        self.every = range(len(self.samples))
        self.few = spread(self.every, study.series_limit)

    def report(self) -> NetworkReport:
        """Measure what is not on disk, and count."""
        measured = self._cells()
        draw = Resamples(len(self.samples), self.study.resamples, self.study.seed)
        threshold = self.opened.network.threshold
        clean = Clean(measured["None"], threshold, draw)
        few = Clean(
            {subject: cell.of(self.few) for subject, cell in clean.cells.items()},
            threshold,
            Resamples(len(self.few), self.study.resamples, self.study.seed),
        )
        rows = {
            a.name: row(a.name, measured[a.name], few if a.series else clean, a.value)
            for a in self.attacks
        }
        series: dict[str | None, list[Row]] = {}
        for attack in self.attacks:
            series.setdefault(attack.series, []).append(rows[attack.name])
        return NetworkReport(
            name=self.name,
            model=self.opened.model,
            task=self.opened.task,
            source=self.opened.source,
            runner=self.opened.runner,
            threshold=self.opened.network.threshold,
            input_size=self.opened.input_size,
            images=len(self.samples),
            table=tuple(series.pop(None)),
            beta=tuple(series.pop("beta", ())),
            alpha={name: tuple(points) for name, points in series.items() if name is not None},
            roc={name: _curves(clean, measured[name]) for name in TABLE_ROWS if name in measured},
            left_out=(*self.left_out, *self.opened.left_out),
        )

    def examples(self, report: NetworkReport) -> tuple[Figure, ...]:
        """Pictures of the first image under the largest patch, and under the aware one that costs most."""
        below = worst(report)
        names = (largest(report), None if below is None else below.attack)
        found: list[Figure] = []
        for attack in self.attacks:
            if attack.name in names:
                image, _ = cell_files.scene(self.samples[0], _patch(attack), 0, self.study.seed)
                found += example(self.opened.network, image, self.opened.classes, attack.name)
        return tuple(found)

    def _cells(self) -> dict[str, dict[str, Cell]]:
        """Attack to subject to cell, from disk where they are.

        Attacks of one patch, such as L and the last of a series, share their cells.
        """
        cells: dict[str, dict[str, Cell]] = {attack.name: {} for attack in self.attacks}
        same: dict[str, list[tuple[Attack, str]]] = {}
        for attack in self.attacks:
            for subject in attack.subjects:
                if subject in self.opened.entries:
                    same.setdefault(self._identity(attack, subject), []).append((attack, subject))
        recover(*(self._path(*places[0]) for places in same.values()))
        found = {
            identity: cell_files.load(self._path(*places[0]), identity, self.data.task)
            for identity, places in same.items()
        }
        missing = [identity for identity, cell in found.items() if cell is None]
        # Opening may itself take a pass over images, with a bar of its own.
        needed = dict.fromkeys(same[identity][0][1] for identity in missing)
        opened = {subject: self.opened.entries[subject].open() for subject in needed}
        done = 0
        total = sum(len(self._picked(same[identity][0][0])) for identity in missing)
        with self.reporter.bar(self.name, total) as advance:
            for identity in missing:
                attack, subject = same[identity][0]
                measured = self._measure(attack, opened[subject], done, advance, subject)
                done += len(self._picked(attack))
                cell_files.save(self._path(attack, subject), measured, identity)
                found[identity] = measured
        for identity, places in same.items():
            for attack, subject in places:
                cell = found[identity]
                if cell is not None:
                    cells[attack.name][subject] = cell
        return cells

    def _measure(
        self, attack: Attack, opened: Subject, start: int, advance: Advance, subject: str
    ) -> Cell:
        return cell_files.measure(
            opened,
            self.samples,
            self.data.task,
            _patch(attack),
            seed=self.study.seed,
            picked=self._picked(attack),
            on_image=lambda done: advance(start + done, f"{attack.name}, {subject}"),
        )

    def _picked(self, attack: Attack) -> Sequence[int]:
        return self.every if attack.series is None else self.few

    def _path(self, attack: Attack, subject: str) -> Path:
        return self.folder / attack.file(subject)

    def _identity(self, attack: Attack, subject: str) -> str:
        settings: dict[str, Any] = {
            "subject": self.opened.entries[subject].identity,
            "patch": None if attack.patch is None else sha256_file(attack.patch),
            "images": self.images,
            "picked": list(self._picked(attack)),
            "size": self.opened.input_size,
            "seed": self.study.seed,
            "tool": __version__,
        }
        return cell_files.fingerprint(settings)


def _patch(attack: Attack) -> Tensor | None:
    return None if attack.patch is None else patches.load(attack.patch)


def _curves(clean: Clean, cells: dict[str, Cell]) -> dict[str, tuple[tuple[float, float], ...]]:
    """Detector to the corners of its ROC curve."""
    found = {}
    for cell in cells.values():
        for name, scores in cell.scores.items():
            corners = detection.roc_curve(clean.scores[name], scores)
            found[name] = tuple((float(fpr), float(tpr)) for fpr, tpr in corners)
    return found

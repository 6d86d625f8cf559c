"""Where a profile's results go: a folder of their own, or the bundle, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from zmask_export.artifacts import calibration as calibrations
from zmask_export.artifacts.bundle import CheckedBundle, open_bundle
from zmask_export.artifacts.files import require_writable, write_text
from zmask_export.artifacts.manifest import (
    CALIBRATION_FILE,
    LATENCY_FILE,
    PARITY_FILE,
    REPORT_FILE,
    Manifest,
)
from zmask_export.artifacts.signature import KeySource
from zmask_export.errors import BundleError, UsageError
from zmask_export.evaluate.embedded import SCORE, address
from zmask_export.evaluate.page import Figure, Section, render
from zmask_export.pipeline.profile import Example, Profile
from zmask_export.profiling.page import report_page
from zmask_export.profiling.quality import quality_sections
from zmask_export.runtime.pictures import overlay
from zmask_export.spec import explain
from zmask_export.verify.report import ParityReport


def default_folder(bundle: Path) -> Path:
    """The folder beside a bundle that a profile goes to."""
    named = bundle if bundle.name not in ("", "..") else bundle.resolve()
    return named.with_name(f"{named.name}-profile")


def require_place(bundle: Path, folder: Path | None) -> None:
    """Refuse a place for results before anything is measured.

    Args:
        bundle: whose results they are.
        folder: where they go; None for the bundle itself.

    Raises:
        UsageError: a folder inside the bundle, whose files are hashed.
        OutputError: it cannot be written.
    """
    if folder is None:
        require_writable(bundle.resolve(), file=False)
        return
    if folder.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(
            f"{folder} is in the bundle, whose files are hashed.",
            fix="Pass --add to put the report into the bundle, or another --out.",
        )
    for name in (LATENCY_FILE, REPORT_FILE):
        require_writable(folder / name)


def built_with(bundle: Path, verify_key: KeySource | None = None) -> tuple[Section, ...]:
    """What the bundle's own files say of parity and calibration, for its report.

    Raises:
        BundleError: no bundle, one that was changed or not signed with ``verify_key``, or its
            parity.json is damaged.
        CalibrationError: the calibration is damaged.
    """
    names = (PARITY_FILE, CALIBRATION_FILE)
    checked = open_bundle(bundle, lambda _: names, verify_key=verify_key)
    calibration = calibrations.parse(checked.read(CALIBRATION_FILE), bundle / CALIBRATION_FILE)
    return tuple(quality_sections(_parity(checked), calibration))


def results(profile: Profile, sections: tuple[Section, ...]) -> dict[str, str]:
    """latency.json and report.html: file name to content.

    Args:
        profile: what was measured.
        sections: of :func:`built_with`.
    """
    examples = [
        figure for example in profile.examples for figure in _figures(example, profile.manifest)
    ]
    page = report_page(profile.report, profile.manifest, sections, examples)
    return {
        LATENCY_FILE: profile.report.model_dump_json(indent=1) + "\n",
        REPORT_FILE: render(page),
    }


def write_beside(folder: Path, files: dict[str, str]) -> None:
    """Write files into a folder, each whole or not at all.

    Raises:
        OutputError: one cannot be written.
    """
    for name, text in files.items():
        write_text(folder / name, text)


def _parity(checked: CheckedBundle) -> ParityReport:
    try:
        return ParityReport.model_validate_json(checked.read(PARITY_FILE))
    except ValidationError as exc:
        raise BundleError(
            f"The bundle {checked.folder} has no readable {PARITY_FILE} ({explain(exc)}).",
            fix="Build it again.",
        ) from exc


def _figures(example: Example, manifest: Manifest) -> tuple[Figure, Figure]:
    frames, result = example.frames, example.result
    picture = frames.pictures[0]
    says = "flagged" if result.flag else "not flagged"
    covered = 1 - float(result.mask.mean())
    if result.detections is not None:
        result = replace(result, detections=result.detections.above(SCORE))
    kind, name = frames.kind.capitalize(), Path(frames.names[0]).name
    caption = f"{kind}: {says}, d {result.score:.4g}, {covered:.1%} covered"
    return (
        Figure(
            f"{kind} frame: {name}",
            source=address(picture, 480),
        ),
        Figure(caption, source=address(overlay(picture, result, manifest.classes), 480)),
    )

"""Where a profile's results go: a folder of their own, or the bundle, whole or not at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from zmask_export.artifacts import calibration as calibrations
from zmask_export.artifacts.files import new_directory, require_writable, write_text
from zmask_export.artifacts.manifest import (
    CALIBRATION_FILE,
    FILE_NAME,
    LATENCY_FILE,
    PARITY_FILE,
    REPORT_FILE,
    Manifest,
    describe_files,
    read_manifest,
)
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


def built_with(bundle: Path) -> tuple[Section, ...]:
    """What the bundle's own files say of parity and calibration, for its report.

    Raises:
        BundleError: no bundle, one that was changed, or its parity.json is damaged.
        CalibrationError: the calibration is damaged.
    """
    read_manifest(bundle)
    return tuple(quality_sections(_parity(bundle), calibrations.load(bundle / CALIBRATION_FILE)))


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


def add_to_bundle(bundle: Path, files: dict[str, str]) -> Manifest:
    """Put files into a bundle, in the place of older ones, with a manifest that holds their hashes.

    The bundle is replaced as a whole: whoever opens it meanwhile finds the old one or the new one.

    Raises:
        BundleError: it was changed since it was built.
        OutputError: it cannot be written.
    """
    whole = bundle.resolve()
    manifest = read_manifest(whole)
    with new_directory(whole, force=True) as folder:
        for name in manifest.files:
            if name not in files:
                _take(whole / name, folder / name)
        for name, text in files.items():
            (folder / name).write_text(text, "utf-8")
        manifest = manifest.model_copy(update={"files": describe_files(folder)})
        (folder / FILE_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    return manifest


def _take(source: Path, target: Path) -> None:
    """A second name for the same bytes, or a copy where the disk has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _parity(bundle: Path) -> ParityReport:
    try:
        return ParityReport.model_validate_json((bundle / PARITY_FILE).read_bytes())
    except (OSError, ValidationError) as exc:
        said = explain(exc) if isinstance(exc, ValidationError) else exc.strerror
        raise BundleError(
            f"The bundle {bundle} has no readable {PARITY_FILE} ({said}).", fix="Build it again."
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

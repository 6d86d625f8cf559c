"""run: images through a bundle, pictures and JSON lines out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zmask_export.artifacts.files import recover, write_bytes, write_text
from zmask_export.data import images
from zmask_export.data.images import OnBad
from zmask_export.data.names import require_utf8
from zmask_export.errors import ImageError, UsageError
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.runtime import pictures
from zmask_export.runtime.detections import Detections
from zmask_export.runtime.protected import Protected, Result
from zmask_export.spec import Spec

LINES_FILE = "results.jsonl"
KINDS = ("mask", "overlay", "prediction")
"""Of the pictures that an image gets."""


class Object(Spec):
    """A detection.

    Attributes:
        label: name of its class.
        score: in [0, 1].
        box: x1 y1 x2 y2 in pixels of the engine's image.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


class ImageRecord(Spec):
    """One JSON line of ``run``.

    Attributes:
        image: the file.
        flag: score > threshold, or the score is no number.
        score: over-activation d; null where it is not finite.
        threshold: the threshold that it was compared with.
        covered: share of pixels covered.
        trusted: False where that is more than ``--max-covered``; absent without that option.
        classes: share of pixels per predicted class, classes that occur only; None of a detector.
        objects: what a detector found; None of other networks.
        files: pictures written, by kind.
    """

    image: str
    flag: bool
    score: float | None
    threshold: float
    covered: float
    trusted: bool | None = None
    classes: dict[str, float] | None = None
    objects: tuple[Object, ...] | None = None
    files: dict[str, str]

    def line(self) -> str:
        """The record as JSON, without what this network has not."""
        return self.model_dump_json(exclude_none=True)


@dataclass(frozen=True)
class RunOptions:
    """Where results go and what to do with bad files. ``out`` None writes no pictures."""

    out: Path | None = None
    threshold: float | None = None
    on_bad: OnBad = "error"


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the images below them.

    Raises:
        UsageError: nothing was given.
        DatasetError: a folder without images, or a name that is no UTF-8.
    """
    if not paths:
        raise UsageError("No image was given.", fix="Give image files or folders.")
    for path in paths:
        require_utf8(path)
    return [
        file for path in paths for file in (images.list_images(path) if path.is_dir() else [path])
    ]


def run(
    engine: Protected,
    paths: Sequence[Path],
    options: RunOptions,
    *,
    reporter: Reporter | None = None,
) -> Iterator[ImageRecord]:
    """Run every image; yield its record when its pictures are written.

    With ``out`` set, the records are also kept in ``results.jsonl`` there.

    Raises:
        ImageError: a bad file, unless it is skipped.
        OutputError: a picture cannot be written.
    """
    reporter = reporter or Silent()
    files = expand(paths)
    stems = [
        path.stem if len(files) == 1 else f"{i:04d}-{path.stem}" for i, path in enumerate(files)
    ]
    if options.out is not None:
        pictures_of = (_picture(options.out, stem, kind) for stem in stems for kind in KINDS)
        recover(options.out / LINES_FILE, *pictures_of)
    lines = []
    try:
        for stem, path in zip(stems, files, strict=True):
            try:
                image = images.read(path, convert=options.on_bad == "convert")
                image = images.resize(image, engine.manifest.input_size, name=str(path))
            except ImageError as exc:
                if options.on_bad != "skip":
                    raise
                reporter.note(f"left out: {exc.what}")
                continue
            result = engine.run(images.to_float([image]), threshold=options.threshold)[0]
            written: dict[str, str] = {}
            if options.out is not None:
                written = _write(options.out, stem, image, result, engine.manifest.classes)
            record = _record(path, result, engine, written)
            lines.append(record.line())
            yield record
    finally:
        # Also where an image ends the run: the lines are those of the pictures that are there.
        if options.out is not None and lines:
            write_text(options.out / LINES_FILE, "".join(f"{line}\n" for line in lines))


def _write(
    out: Path, stem: str, image: pictures.Picture, result: Result, classes: tuple[str, ...]
) -> dict[str, str]:
    made = {
        "mask": pictures.mask_picture(result),
        "overlay": pictures.overlay(image, result, classes),
    }
    if result.prediction is not None:
        made["prediction"] = pictures.colour_prediction(result.prediction, classes)
    written = {}
    for kind, picture in made.items():
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        path = _picture(out, stem, kind)
        write_bytes(path, buffer.getvalue())
        written[kind] = str(path)
    return written


def _picture(out: Path, stem: str, kind: str) -> Path:
    return out / f"{stem}.{kind}.png"


def _record(path: Path, result: Result, engine: Protected, written: dict[str, str]) -> ImageRecord:
    classes = engine.manifest.classes
    return ImageRecord(
        image=str(path),
        flag=result.flag,
        score=result.score,
        threshold=result.threshold,
        covered=float((~result.mask).mean()),
        trusted=None if engine.max_covered is None else result.trusted,
        classes=None if result.prediction is None else _shares(result.prediction, classes),
        objects=None if result.detections is None else _objects(result.detections, classes),
        files=written,
    )


def _shares(prediction: pictures.Picture, classes: tuple[str, ...]) -> dict[str, float]:
    counts = np.bincount(prediction.ravel(), minlength=len(classes))
    shares = counts / counts.sum()
    return {
        name: round(float(share), 6)
        for name, share in zip(classes, shares, strict=False)
        if share > 0
    }


def _objects(found: Detections, classes: tuple[str, ...]) -> tuple[Object, ...]:
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return tuple(
        Object(label=classes[label], score=round(score, 6), box=tuple(round(v, 2) for v in box))
        for label, score, box in rows
    )

"""The frames that a bundle is profiled on: the user's, or drawn streets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zmask_export import presets
from zmask_export.artifacts.manifest import Manifest
from zmask_export.data import images
from zmask_export.data.drawn import DrawnScenes
from zmask_export.data.images import OnBad
from zmask_export.errors import DatasetError, ImageError
from zmask_export.pipeline.run import expand
from zmask_export.profiling.frames import THRESHOLDS, Frame, feed
from zmask_export.spec import Size

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Frames:
    """Frames of one kind.

    Attributes:
        kind: clean or attacked.
        about: what they are, in words.
        threshold: lambda0 of their runs; None forces the branch of the kind.
        names: one an image.
        pictures: uint8 (H, W, 3) of the engine's size.
    """

    kind: Frame
    about: str
    threshold: float | None
    names: tuple[str, ...]
    pictures: tuple[Picture, ...]

    def inputs(self, batch: int) -> dict[str, NDArray[np.float32]]:
        """A graph's inputs for a batch; the images repeat where there are fewer."""
        picked = [self.pictures[index % len(self.pictures)] for index in range(batch)]
        return feed(images.to_float(picked), self.kind, self.threshold)

    @property
    def limit(self) -> float:
        """The threshold in numbers."""
        return THRESHOLDS[self.kind] if self.threshold is None else self.threshold


def choose_frames(
    manifest: Manifest,
    clean: Sequence[Path],
    attacked: Sequence[Path],
    *,
    count: int,
    on_bad: OnBad = "error",
) -> tuple[Frames, Frames]:
    """Clean and attacked frames.

    Args:
        manifest: of the bundle.
        clean: the user's files or folders; drawn streets where empty.
        attacked: the same; the clean frames, with the shipped patch where the network has one, where
            empty. Their runs get a threshold that every score exceeds.
        count: most images of a kind.
        on_bad: what to do with files that are no 8-bit RGB.

    Raises:
        DatasetError: no file of a kind can be used.
        ImageError: a bad file, unless it is skipped.
        ShapeError: the engine's input is too small to draw a street.
    """
    size = manifest.input_size
    if clean:
        names, pictures = _read(clean, size, count, on_bad)
        first = Frames("clean", "The images that were given.", manifest.threshold, names, pictures)
    else:
        drawn = [f for f in DrawnScenes(size, count).frames() if f is not None]
        first = Frames(
            "clean",
            "Drawn streets; the threshold is above every score, so that nothing is covered.",
            None,
            tuple(frame.name for frame in drawn),
            tuple(frame.image for frame in drawn),
        )
    if attacked:
        names, pictures = _read(attacked, size, count, on_bad)
        about = "The attacked images that were given."
        return first, Frames("attacked", about, manifest.threshold, names, pictures)
    patch = _shipped_patch(manifest)
    what = "The clean frames"
    if patch is not None:
        what += " with the network's shipped patch in them"
    about = f"{what}; the threshold is below every score, so that the defense acts on all of them."
    pictures = tuple(p if patch is None else _patched(p, patch) for p in first.pictures)
    return first, Frames("attacked", about, None, first.names, pictures)


def _read(
    paths: Sequence[Path], size: Size, count: int, on_bad: OnBad
) -> tuple[tuple[str, ...], tuple[Picture, ...]]:
    found: dict[str, Picture] = {}
    for path in expand(paths):
        if len(found) == count:
            break
        try:
            image = images.read(path, convert=on_bad == "convert")
            found[str(path)] = images.resize(image, size, name=str(path))
        except ImageError:
            if on_bad != "skip":
                raise
    if not found:
        raise DatasetError(
            f"None of {', '.join(map(str, paths))} is an 8-bit RGB image.",
            fix="Give RGB images, or pass --on-bad-image convert.",
        )
    return tuple(found), tuple(found.values())


def _shipped_patch(manifest: Manifest) -> Image.Image | None:
    """The patch that belongs to the network's demo preset, as large as it is there beside the input."""
    if not (presets.folder() / manifest.model / "preset.yaml").is_file():
        return None
    shipped = presets.find(manifest.model)
    if shipped.patch is None:
        return None
    with Image.open(shipped.patch) as patch:
        (height, width), (h, w) = manifest.input_size, shipped.preset.input_size
        size = (max(1, patch.width * width // w), max(1, patch.height * height // h))
        return patch.convert("RGB").resize(size, Image.Resampling.BILINEAR)


def _patched(picture: Picture, patch: Image.Image) -> Picture:
    """The picture with the patch right of its middle."""
    image = Image.fromarray(picture)
    image.paste(patch, ((image.width - patch.width) * 2 // 3, (image.height - patch.height) // 2))
    return np.asarray(image)

"""Patch files: PNG images that carry how they were made."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from pydantic import FiniteFloat, ValidationError
from torch import Tensor

from zmask_export.artifacts.files import write_bytes
from zmask_export.attack.detection_effect import DetectionEffect
from zmask_export.attack.effect import Effect
from zmask_export.attack.settings import Combine, Goal, Kind
from zmask_export.data import images
from zmask_export.data.pillow import DAMAGED, no_bombs
from zmask_export.errors import ImageError, PatchError
from zmask_export.spec import Size, Spec, explain

_KEY = "zmask-export"


class PatchInfo(Spec):
    """How a patch was made; stored in the PNG.

    The defaults are what was used before a field was recorded, so that older patches can be read.

    Attributes:
        tool_version: version of this package.
        kind: what the patch was made for.
        model, weights_sha256: the attacked network.
        size, image_size: (h, w) of the patch and of the images, in pixels.
        images, data_sha256: how many images, and the sha256 of their pixels, labels and boxes.
        epochs, batch, lr, seed, smoothness, printability, combine, beta, alpha, aware_images, balanced,
            goal, target_class, box_weight: see ``CraftSettings``.
        scale, brightness, contrast, noise: see ``Appearance``.
        palette_sha256, calibration_sha256: of the palette's colours and of the calibration file.
        start_sha256: of the patch file that it began with; None for noise.
        loss: mean loss of the last epoch, see ``Crafted``; None for a random patch.
        evasion: mean evasion loss of the last epoch, where there is one.
        effect: what the patch does on some of the images that it was crafted on.
    """

    tool_version: str
    kind: Kind = "adversarial"
    model: str
    weights_sha256: str
    size: Size
    image_size: Size
    images: int
    data_sha256: str | None = None
    epochs: int
    batch: int = 5
    lr: FiniteFloat = 0.1
    seed: int
    smoothness: FiniteFloat
    printability: FiniteFloat = 0.0
    combine: Combine = "sum"
    beta: FiniteFloat = 1.0
    alpha: FiniteFloat = 1.0
    aware_images: int | None = None
    balanced: bool
    goal: Goal | None = None
    target_class: int | None = None
    box_weight: FiniteFloat = 1.0
    scale: tuple[FiniteFloat, FiniteFloat]
    brightness: FiniteFloat = 0.07
    contrast: FiniteFloat = 0.1
    noise: FiniteFloat = 0.07
    palette_sha256: str | None = None
    start_sha256: str | None = None
    calibration_sha256: str | None = None
    loss: FiniteFloat | None
    evasion: FiniteFloat | None = None
    effect: Effect | DetectionEffect | None = None


def save(path: Path, patch: Tensor, info: PatchInfo | None) -> None:
    """Write a patch (3, h, w) in [0, 1] as 8-bit PNG.

    Raises:
        OutputError: it cannot be written.
    """
    array = _bytes(patch).permute(1, 2, 0).numpy()
    metadata = PngImagePlugin.PngInfo()
    if info is not None:
        metadata.add_text(_KEY, info.model_dump_json())
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", pnginfo=metadata, optimize=True)
    write_bytes(path, buffer.getvalue())


def as_saved(patch: Tensor) -> Tensor:
    """What :func:`load` gives after :func:`save`: a patch (3, h, w) rounded to 8 bits a colour."""
    return _bytes(patch).float() / 255


def _bytes(patch: Tensor) -> Tensor:
    return (patch.clamp(0, 1) * 255).round().byte()


def load(path: Path) -> Tensor:
    """Read any 8-bit RGB image as a patch, float32 (3, h, w) in [0, 1].

    Raises:
        PatchError: it cannot be read.
    """
    try:
        array = images.read(path)
    except ImageError as exc:
        raise PatchError(
            f"The patch cannot be used: {exc.what}", fix="Give an 8-bit RGB image, as craft writes."
        ) from exc
    return torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


def size(path: Path) -> Size:
    """(h, w) of a patch file in pixels.

    Raises:
        PatchError: it cannot be read.
    """
    h, w = load(path).shape[1:]
    return h, w


def info(path: Path) -> PatchInfo | None:
    """How a patch was made; None for an image of other origin.

    Raises:
        PatchError: the record in the file is damaged.
    """
    try:
        with no_bombs(), Image.open(path) as image:
            text = image.info.get(_KEY)
    except DAMAGED as exc:
        raise PatchError(
            f"The patch {path} cannot be read.", fix="Give an 8-bit RGB image."
        ) from exc
    if text is None:
        return None
    try:
        return PatchInfo.model_validate_json(text)
    except ValidationError as exc:
        raise PatchError(
            f"The record in the patch {path} is damaged: {explain(exc)}.",
            fix="Craft the patch again.",
        ) from exc

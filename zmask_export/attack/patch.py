"""Patch files: PNG images that carry how they were made."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from pydantic import Field, ValidationError
from torch import Tensor

from zmask_export.artifacts.files import write_bytes
from zmask_export.data import images
from zmask_export.errors import ImageError, PatchError
from zmask_export.spec import Size, Spec, explain

_KEY = "zmask-export"


class PatchInfo(Spec):
    """How a patch was made; stored in the PNG."""

    tool_version: str
    model: str
    weights_sha256: str
    size: Size
    image_size: Size
    images: int
    epochs: int
    seed: int
    smoothness: float
    balanced: bool
    scale: tuple[float, float]
    loss: Annotated[float, Field(description="mean attack loss of the last epoch")]


def save(path: Path, patch: Tensor, info: PatchInfo | None) -> None:
    """Write a patch (3, h, w) in [0, 1] as 8-bit PNG.

    Raises:
        OutputError: it cannot be written.
    """
    array = (patch.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    metadata = PngImagePlugin.PngInfo()
    if info is not None:
        metadata.add_text(_KEY, info.model_dump_json())
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", pnginfo=metadata, optimize=True)
    write_bytes(path, buffer.getvalue())


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


def info(path: Path) -> PatchInfo | None:
    """How a patch was made; None for an image of other origin.

    Raises:
        PatchError: the record in the file is damaged.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(_KEY)
    except (OSError, Image.DecompressionBombError) as exc:
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

"""Palette files: the colours that a printer can print."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.data import images
from zmask_export.errors import ImageError, InputError

MAX_COLOURS = 256
_MAX_BYTES = 1 << 20


def load(path: Path) -> Tensor:
    """The distinct colours of a palette file, float32 (k, 3) in [0, 1], sorted.

    A text file has a colour a line, ``r g b`` or ``r,g,b``; blank lines and lines that begin with #
    do not count. Where any value exceeds 1, all are in 0..255. A file with an image's suffix is an
    image, and its palette are the colours in it.

    Raises:
        InputError: no such file, a line that is no colour (named), no colour, or too many.
    """
    colours = _of_image(path) if path.suffix.lower() in images.SUFFIXES else _of_text(path)
    distinct = np.unique(colours, axis=0)
    if not len(distinct):
        raise _bad(path, "holds no colour")
    if len(distinct) > MAX_COLOURS:
        raise _bad(path, f"holds {len(distinct)} colours, more than {MAX_COLOURS}")
    return torch.from_numpy(distinct.astype(np.float32))


def sha256(palette: Tensor) -> str:
    """sha256 of a palette's colours; the file's form does not matter."""
    return hashlib.sha256(np.ascontiguousarray(palette.numpy()).tobytes()).hexdigest()


def _of_image(path: Path) -> NDArray[np.float64]:
    try:
        array = images.read(path, convert=True)
    except ImageError as exc:
        raise InputError(
            f"The palette cannot be used: {exc.what}",
            fix="Give a text file with a colour a line, or an image of larger size.",
        ) from exc
    codes = np.unique(array.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1) / 255


def _of_text(path: Path) -> NDArray[np.float64]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _bad(path, "is too large to be a list of colours")
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise _bad(path, "cannot be read as text") from exc
    rows = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            rows.append(_colour(path, number, text))
    colours = np.array(rows, np.float64).reshape(-1, 3)
    return colours / 255 if (colours > 1).any() else colours


def _colour(path: Path, number: int, text: str) -> list[float]:
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise _bad(path, f"has no colour in line {number} ({text[:40]!r})")
    return values


def _bad(path: Path, what: str) -> InputError:
    return InputError(
        f"The palette {path} {what}.",
        fix=f"Give 1 to {MAX_COLOURS} colours, a line each: r g b, in [0, 1] or 0..255.",
    )

"""Images from disk: which files count, how they are decoded, how they are resized.

The rule, stated once: an image is 8-bit RGB; one of another size than the network's input is
stretched to it with Pillow's bilinear filter (which averages when it shrinks); one that would be
stretched by more than ``MAX_STRETCH`` is refused, because its statistics would not be those of the
network's images. Nothing is cropped or padded.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from zmask_export.data.names import require_utf8
from zmask_export.data.pillow import BOMBS, DAMAGED, no_bombs
from zmask_export.data.sampling import spread
from zmask_export.errors import DatasetError, ImageError, shortage

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MAX_STRETCH = 2.0
"""Largest change of aspect ratio, in either direction, that resizing may bring."""
MIN_SIDE = 16
"""Smallest side of an image file in pixels."""

OnBad = Literal["error", "skip", "convert"]
"""What to do with a file that is no 8-bit RGB image: stop, leave it out, or convert its colours."""

_CONVERTIBLE = frozenset({"1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


def decode(data: bytes, name: str, *, convert: bool = False) -> NDArray[np.uint8]:
    """Decode one image file.

    Args:
        data: the file's bytes.
        name: what to call it in an error.
        convert: turn other colour modes into RGB (alpha is dropped) instead of refusing them.

    Returns:
        uint8 array (H, W, 3), RGB.

    Raises:
        ImageError: no image, cut short, too small, or not 8-bit RGB.
    """
    try:
        with no_bombs():
            image = Image.open(io.BytesIO(data))
            mode = image.mode
            if mode != "RGB" and not (convert and mode in _CONVERTIBLE):
                raise ImageError(
                    f"{name} is {_describe(mode)}, not an 8-bit RGB image.",
                    fix=_mode_fix(mode),
                )
            # Pillow opens 16-bit RGB as RGB too, and drops the lower byte.
            if any(re.search(r"RGB\w*;16", str(tile[3])) for tile in getattr(image, "tile", ())):
                raise ImageError(f"{name} has 16 bits a channel, not 8.", fix=_mode_fix("I;16"))
            if min(image.size) < MIN_SIDE:
                raise ImageError(
                    f"{name} is only {image.width} x {image.height} pixels.",
                    fix=f"Give images with sides of at least {MIN_SIDE} pixels.",
                )
            array = np.asarray(image if mode == "RGB" else image.convert("RGB"))
    except BOMBS as exc:
        raise ImageError(
            f"{name} claims an enormous size ({exc}).", fix="Shrink the image, or leave it out."
        ) from exc
    except UnidentifiedImageError as exc:
        raise ImageError(
            f"{name} is not an image.",
            fix="Remove it from the folder, or pass --on-bad-image skip.",
        ) from exc
    except DAMAGED as exc:
        raise shortage(exc) or ImageError(
            f"{name} is damaged or cut short ({exc}).",
            fix="Copy the file again, or pass --on-bad-image skip.",
        ) from exc
    return array


def _describe(mode: str) -> str:
    names = {
        "L": "a grey image",
        "LA": "a grey image with alpha",
        "P": "a palette image",
        "RGBA": "an RGBA image",
        "CMYK": "a CMYK image",
        "F": "a floating-point image",
        "I": "a 32-bit grey image",
        "1": "a black-and-white image",
    }
    return names.get(
        mode, "a 16-bit image" if mode.startswith("I;16") else f"an image of mode {mode}"
    )


def _mode_fix(mode: str) -> str:
    if mode in _CONVERTIBLE:
        return "Save it as RGB, or pass --on-bad-image convert (or skip)."
    return "Save it as 8-bit RGB, or pass --on-bad-image skip."


def read(path: Path, *, convert: bool = False) -> NDArray[np.uint8]:
    """Read and :func:`decode` one image file as uint8 (H, W, 3).

    Raises:
        ImageError: see :func:`decode`; also a file that cannot be read.
    """
    return decode(_bytes(path), str(path), convert=convert)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise shortage(exc) or ImageError(
            f"{path} cannot be read ({exc.strerror}).",
            fix="Check that the file exists and may be read.",
        ) from exc


def resize(
    image: NDArray[np.uint8], size: tuple[int, int], *, name: str = "image"
) -> NDArray[np.uint8]:
    """Stretch an image (H, W, 3) to ``size`` (H, W) by the rule of this module.

    Raises:
        ImageError: its aspect ratio would change by more than ``MAX_STRETCH``.
    """
    h, w = image.shape[:2]
    if (h, w) == size:
        return image
    stretch = (w / h) / (size[1] / size[0])
    if max(stretch, 1 / stretch) > MAX_STRETCH:
        raise ImageError(
            f"{name} is {w} x {h}, whose shape is too far from the network's input "
            f"{size[1]} x {size[0]} to be stretched.",
            fix="Crop the images to the input's shape, or choose an --input-size of their shape.",
        )
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def to_float(batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Stack uint8 images (H, W, 3) of one size into float32 (N, 3, H, W) in [0, 1]."""
    stacked = np.stack(batch).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked, dtype=np.float32) / np.float32(255)


@dataclass(frozen=True)
class Frame:
    """One decoded image: its name, its pixels (H, W, 3), the sha256 of the file's bytes."""

    name: str
    image: NDArray[np.uint8]
    digest: str


class ImageSource(Protocol):
    """Images of one size, in a fixed order, that can be read from any position on.

    Attributes:
        size: (H, W) of every image.
        names: one a file; part of what identifies the set.
        rule: how bad files are treated; likewise.
        version: another where a file was changed or the set is another one of the same names.
    """

    size: tuple[int, int]
    names: list[str]
    rule: str
    version: str

    def frames(
        self, start: int = 0, *, on_skip: Callable[[ImageError], None] | None = None
    ) -> Iterator[Frame | None]:
        """One item a file from ``start`` on; None for a bad file that was left out."""
        ...


class ImageFolder:
    """All images below a folder, nested folders included, in a fixed order.

    Args:
        root: the folder.
        size: network input (H, W) that images are resized to.
        on_bad: what to do with files that are no 8-bit RGB image.
        limit: at most this many images, spread evenly over the sorted list; None takes all.

    Raises:
        DatasetError: the folder does not exist or holds no file that could be an image.
    """

    def __init__(
        self,
        root: Path,
        size: tuple[int, int],
        *,
        on_bad: OnBad = "error",
        limit: int | None = None,
    ) -> None:
        self.root = root
        self.size = size
        self.on_bad = on_bad
        self.rule: str = on_bad
        self.paths = spread(list_images(root), limit)
        self.names = [path.relative_to(root).as_posix() for path in self.paths]
        self.version = _version(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, start: int, stop: int) -> ImageFolder:
        """Images ``start`` to ``stop`` (exclusive) alone, wherever they are read from."""
        part = copy.copy(self)
        part.paths = [path.absolute() for path in self.paths[start:stop]]
        part.names = self.names[start:stop]
        return part

    def frames(
        self, start: int = 0, *, on_skip: Callable[[ImageError], None] | None = None
    ) -> Iterator[Frame | None]:
        """Decode from image ``start`` on, one image ahead, in order.

        Yields one item a file: a frame, or None where a bad file was left out (``on_skip`` is then
        told why).

        Raises:
            ImageError: a bad file, unless ``on_bad`` is "skip".
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            pending = [pool.submit(self._load, i) for i in range(start, min(start + 2, len(self)))]
            for index in range(start, len(self)):
                current = pending.pop(0)
                if index + 2 < len(self):
                    pending.append(pool.submit(self._load, index + 2))
                try:
                    yield current.result()
                except ImageError as exc:
                    if self.on_bad != "skip":
                        raise
                    if on_skip is not None:
                        on_skip(exc)
                    yield None

    def _load(self, index: int) -> Frame:
        path = self.paths[index]
        data = _bytes(path)
        image = decode(data, str(path), convert=self.on_bad == "convert")
        image = resize(image, self.size, name=str(path))
        return Frame(self.names[index], image, hashlib.sha256(data).hexdigest())


def list_images(root: Path) -> list[Path]:
    """All files below ``root``, sorted by path, hidden ones left out.

    Every visible file counts, whatever its name, so that a folder with something else in it is
    refused by the decoder with the file's name and not silently cut.

    Raises:
        DatasetError: no such folder, or nothing in it, or a name that is no UTF-8.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder.", fix="Give a folder of images with --images.")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(root).parts)
    )
    for path in found:
        require_utf8(path)
    if not any(path.suffix.lower() in SUFFIXES for path in found):
        raise DatasetError(
            f"{root} holds no image ({len(found)} other files).",
            fix=f"Give a folder with images ({', '.join(sorted(SUFFIXES))}).",
        )
    return found


def _version(paths: list[Path]) -> str:
    """sha256 over sizes and times of change: reading all files again would cost what a resume saves."""
    digest = hashlib.sha256()
    for path in paths:
        with contextlib.suppress(OSError):  # a file that is gone is named when it is read
            digest.update(f"{path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()

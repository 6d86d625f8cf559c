"""Image files of every kind, good and bad, for the tests of readers."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (24, 32)


def pixels(seed: int = 0, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def in_mode(mode: str, kind: str = "PNG") -> bytes:
    return encode(Image.fromarray(pixels()).convert(mode), kind)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PNG = encode(Image.fromarray(pixels()))
JPEG = encode(Image.fromarray(pixels()), "JPEG")
DEEP_RGB = png(32, 24, 16, 2, (b"\0" + bytes(32 * 6)) * 24)
DEEP_GREY = encode(Image.fromarray(np.full(SIZE, 40_000, np.uint16)))
FLOAT_TIFF = encode(Image.fromarray(np.zeros(SIZE, np.float32)), "TIFF")

WRONG = {
    "grey": (in_mode("L"), "grey image"),
    "grey with alpha": (in_mode("LA"), "grey image with alpha"),
    "rgba": (in_mode("RGBA"), "RGBA"),
    "palette": (in_mode("P"), "palette"),
    "black and white": (in_mode("1"), "black-and-white"),
    "cmyk": (in_mode("CMYK", "JPEG"), "CMYK"),
    "16-bit grey": (DEEP_GREY, "16-bit"),
    "16-bit rgb": (DEEP_RGB, "16 bits"),
    "float": (FLOAT_TIFF, "floating-point"),
    "1 x 1": (encode(Image.new("RGB", (1, 1))), "only 1 x 1"),
    "cut JPEG": (JPEG[: len(JPEG) // 2], "cut short"),
    "cut PNG": (PNG[:-40], "cut short"),
    "text": (b"not an image at all\n" * 10, "is not an image"),
    "empty": (b"", "is not an image"),
    "header only": (PNG[:8], "is not an image"),
    "bomb": (png(20_000, 20_000, 8, 2, b""), "enormous"),
    "small bomb": (png(11_000, 11_000, 8, 2, b""), "enormous"),
}
CONVERTIBLE = ("grey", "grey with alpha", "rgba", "palette", "black and white", "cmyk")

"""How Pillow fails on files of others."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from PIL import Image

BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
"""What it raises for an image that claims an enormous size, under :func:`no_bombs`."""
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, *BOMBS)
"""What it raises for a file that it cannot decode, enormous ones among them."""


@contextlib.contextmanager
def no_bombs() -> Iterator[None]:
    """Make an image that claims an enormous size an error, where Pillow would warn and decode it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield

"""Colours: float64 RGB from 0 to 255, the last axis of every array here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float64]
"""One colour (3,), or several (..., 3)."""


def _palette(text: str) -> Colour:
    return np.array([list(bytes.fromhex(colour)) for colour in text.split()], np.float64)


WALLS = _palette("786255 685249 968d7a 8a8376 807f7b b4b2ac 9f9a90 5c5753")
PAINTS = _palette("26282c 464a50 8c9094 b0b2b2 30363f 553b38 3a423f 6e7276")
CLOTHES = _palette("1e1e22 2c2e3a 3e342e 483030 545456")
GREENS = _palette("545a42 464f3c 5e6048")
ROOFS = _palette("464446 5c4a44 3c3c40")
RED, BLUE, WHITE, AMBER, SKIN, HAIR, BLACK = _palette(
    "8c3634 34486e c4c2bc a8986a 8c7466 3e342e 101012"
)
METAL, DARK_GLASS, LIT_GLASS = _palette("6e7276 26282c 8c9094")
CLEAR, OVERCAST, BRIGHT, DULL = _palette("8fb2d4 d2dae0 f2f6f6 dce4ea")


def mix(a: Colour, b: Colour, part: float | NDArray[np.floating[Any]]) -> Colour:
    """Blend two colours.

    Args:
        a: colours (..., 3).
        b: colours (..., 3) that broadcast with ``a``.
        part: how much of ``b``, 0 to 1; a number, or an array that broadcasts with both.

    Returns:
        Colours (..., 3).
    """
    return a + (b - a) * part


def pick(rng: np.random.Generator, palette: Colour, light: float = 1.0) -> Colour:
    """Choose one colour (3,) of a palette (N, 3), a little lighter or darker, times ``light``."""
    return palette[rng.integers(len(palette))] * rng.uniform(0.8, 1.15) * light

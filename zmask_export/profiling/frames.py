"""Clean and attacked frames as a graph's inputs: which branch of the gate a run takes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Frame = Literal["clean", "attacked"]
FRAMES: tuple[Frame, ...] = ("clean", "attacked")

THRESHOLDS: dict[str, float] = {"clean": 3.0e38, "attacked": -1.0}
"""lambda0 that no score reaches, and one that every score exceeds: they choose the gate's branch."""


def feed(
    images: NDArray[np.float32], frame: str | None, threshold: float | None = None
) -> dict[str, NDArray[np.float32]]:
    """A graph's inputs for images of one kind.

    Args:
        images: float32 (N, 3, H, W) in [0, 1].
        frame: clean or attacked; None for a graph without a gate.
        threshold: lambda0; None forces the branch that ``frame`` names.
    """
    limit = THRESHOLDS[frame or "clean"] if threshold is None else threshold
    return {"image": images, "threshold": np.asarray([limit], np.float32)}

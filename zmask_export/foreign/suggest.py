"""Which layers to name when the user named none, or one that does not exist."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping

from zmask_export.errors import ShapeError, UsageError

Shape = tuple[int, ...]
MIN_SIDE = 4
"""A map with a shorter side says nothing about places."""
MOST = 10


def stages(maps: Mapping[str, Shape]) -> list[str]:
    """The last map of every resolution on the way down, in the order of the forward pass.

    Args:
        maps: layer to (C, h, w), in that order.
    """
    last: dict[Shape, str] = {}
    smallest = math.inf
    for name, shape in maps.items():
        cells = shape[1] * shape[2]
        if min(shape[1:]) >= MIN_SIDE and cells <= smallest:
            smallest = cells
            last[shape[1:]] = name
    return list(last.values())[:MOST]


def require_taps(shallow: Iterable[str], deep: Iterable[str], maps: Mapping[str, Shape]) -> None:
    """Refuse a network without taps.

    Raises:
        UsageError: S or D is empty; layers that suit are listed.
    """
    for option, taps in (("--shallow", tuple(shallow)), ("--deep", tuple(deep))):
        if not taps:
            raise UsageError(
                "The taps of this network are not known.",
                fix=f"Name layers with {option}, or in a preset; one a resolution: "
                f"{', '.join(stages(maps)) or 'none gives a map'}.",
            )


def require_known(tap: str, known: Iterable[str], maps: Mapping[str, Shape], what: str) -> None:
    """Refuse a tap that does not exist.

    Args:
        tap: what the user wrote.
        known: everything that can be tapped.
        maps: layers that give maps.
        what: "layer" or "tensor".

    Raises:
        UsageError: with near names and layers that suit.
    """
    names = [name for name in known if name]
    if tap in names:
        return
    near = difflib.get_close_matches(tap, names, n=4, cutoff=0.4)
    said = f"Near names: {', '.join(near)}. " if near else ""
    raise UsageError(
        f"The network has no {what} called {tap!r}.",
        fix=f"{said}One a resolution: {', '.join(stages(maps)) or 'none gives a map'}.",
    )


def require_map(tap: str, shape: Shape | None, got: str) -> None:
    """Refuse a tap that gives no map.

    Raises:
        ShapeError: ``shape``, (N, C, h, w), has other than four dimensions, or there is none.
    """
    if shape is None or len(shape) != 4 or not all(shape):
        raise ShapeError(
            f"The tap {tap!r} gives {got}, not a map (N, C, H, W).",
            fix="Tap a convolutional layer, one that gives float32.",
        )

"""Picking some of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from zmask_export.errors import UsageError

Item = TypeVar("Item")


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """``limit`` of the items, spread evenly; all of them where ``limit`` is None.

    Raises:
        UsageError: ``limit`` is under 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} leaves no image.", fix="Give at least 1.")
    if limit is None or limit >= len(items):
        return list(items)
    picks = np.linspace(0, len(items) - 1, limit).round().astype(int)
    return [items[i] for i in picks]

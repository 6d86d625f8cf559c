"""What :func:`zmask_export.load` and an engine's call are given, checked: callers need not be typed."""

from __future__ import annotations

import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from zmask_export.errors import UsageError

MOST_THREADS = 4096
"""More CPU threads than any machine has."""


def require_path(given: Any) -> Path:
    """A path.

    Raises:
        UsageError: it is none.
    """
    if isinstance(given, (str, os.PathLike)):
        name = os.fspath(given)
        if isinstance(name, str) and "\0" not in name:
            return Path(name)
    raise UsageError(f"{given!r} is no path.", fix="Give the folder or file as str or Path.")


def require_threads(given: Any) -> int:
    """A number of CPU threads.

    Raises:
        UsageError: it is none.
    """
    if isinstance(given, Integral) and 0 <= int(given) <= MOST_THREADS:
        return int(given)
    raise UsageError(f"{given!r} threads are not possible.", fix=f"Give 0 to {MOST_THREADS}.")


def require_share(given: Any) -> float:
    """A share of an image, in [0, 1].

    Raises:
        UsageError: it is none.
    """
    if isinstance(given, Real) and 0 <= float(given) <= 1:
        return float(given)
    raise UsageError(f"A covered share of {given} is not in [0, 1].", fix="Give for example 0.5.")


def require_threshold(given: Any) -> float:
    """A threshold, lambda0: a number from 0 on.

    Raises:
        UsageError: it is none.
    """
    if isinstance(given, Real) and float(given) >= 0:
        return float(given)
    raise UsageError(f"A threshold of {given} is not possible.", fix="Give a number of at least 0.")

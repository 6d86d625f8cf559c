"""Ctrl-C that cannot get lost: libraries swallow KeyboardInterrupt while they import lazily."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_seen = threading.Event()


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT as Python does, and remember it.

    Where SIGINT is ignored (a shell's background job) or this is not the main thread, nothing changes.
    """
    _seen.clear()
    handles = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not handles:
        yield
        return

    def remember(number: int, frame: FrameType | None) -> None:
        _seen.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def happened() -> bool:
    """Whether SIGINT came since ``remembered`` was entered."""
    return _seen.is_set()


def check() -> None:
    """Raise the KeyboardInterrupt that a library swallowed.

    Raises:
        KeyboardInterrupt: SIGINT came.
    """
    if happened():
        raise KeyboardInterrupt

"""Ctrl-C and its like: they end every verb the same way, and cannot get lost.

Libraries swallow KeyboardInterrupt while they import lazily; so a signal is remembered.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""What asks a program to end: a terminal, a supervisor, a terminal that goes away."""

_KEPT = {
    "calibrate": "What was measured is kept beside --out: the same command goes on from there.",
    "craft": "Finished epochs are kept beside --out: the same command goes on from there.",
    "evaluate": "Finished cells of a --study are kept in --out: the same command goes on from there.",
    "profile": "What is finished stays; the same command measures again.",
    "run": "Pictures that are finished stay in --out, with their lines in results.jsonl.",
}
_NOTHING = "Nothing half-written is left; the same command starts again."

_seen: list[int] = []


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Raise KeyboardInterrupt on each of :data:`SIGNALS`, as Python does on SIGINT, and remember it.

    A signal that is ignored (in a shell's background job, under nohup) or that somebody else handles stays
    as it is; so do all of them outside the main thread.
    """
    _seen.clear()
    main = threading.current_thread() is threading.main_thread()
    defaults = (signal.default_int_handler, signal.SIG_DFL)
    before = {number: signal.getsignal(number) for number in SIGNALS if main}
    ours = {number: handler for number, handler in before.items() if handler in defaults}

    def remember(number: int, frame: FrameType | None) -> None:
        _seen.append(number)
        raise KeyboardInterrupt

    for number in ours:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def happened() -> bool:
    """Whether a signal came since ``remembered`` was entered."""
    return bool(_seen)


def check() -> None:
    """Raise the KeyboardInterrupt that a library swallowed.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    if happened():
        raise KeyboardInterrupt


def exit_code() -> int:
    """128 and the number of the first signal, as a shell says it; that of SIGINT where none came."""
    return 128 + (_seen[0] if _seen else signal.SIGINT)


def message(verb: str) -> str:
    """One line for an interrupted verb: what is kept, and how it goes on."""
    return f"Interrupted. {_KEPT.get(verb, _NOTHING)}"

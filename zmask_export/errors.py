"""Every failure a user can cause, as one tree.

    ZMaskError                          exit
    ├── UsageError                         2   options that contradict each other or do not exist
    ├── ParityError                        3   reference and engine disagree
    ├── InputError                         4   what was handed over is wrong
    │   ├── ImageError                         an image file
    │   ├── DatasetError                       a folder of images or labels
    │   ├── NetworkError                       a network of the user's own: a module or an ONNX file
    │   ├── WeightsError                       a checkpoint
    │   ├── CalibrationError                   a calibration file
    │   ├── PatchError                         a patch file
    │   ├── BundleError                        a bundle
    │   └── ShapeError                         a tensor's shape or dtype
    ├── OutputError                        5   the result cannot be written
    ├── BackendError                       6   a compiler or runner
    │   ├── BackendUnavailableError            it is not on this machine
    │   └── CompileError                       it refuses the graph
    ├── DriftError                         7   clean frames are no longer those of the calibration
    └── FlagRateError                      8   more frames are flagged than the calibration explains

Each error is two sentences: ``what`` happened and how to ``fix`` it.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import Any, ClassVar

_STARVED = re.compile(
    r"allocate memory|out of memory|bad_alloc|map segment from shared|start new thread|pthread_create"
    r"|could not create a primitive$",
    re.IGNORECASE,
)
"""What Python, torch, oneDNN, ONNX Runtime, Pillow and the dynamic loader say where memory is refused."""


class ZMaskError(Exception):
    """Base of all errors of this package.

    Args:
        what: one sentence, what went wrong, with the values at hand.
        fix: one sentence, what the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors travel between processes, and pickle would call the class without ``fix``.
        return _again, (type(self), self.what, self.fix)

    def __str__(self) -> str:
        return f"{self.what}\n  Fix: {self.fix}"


def _again(kind: type[ZMaskError], what: str, fix: str) -> ZMaskError:
    return kind(what, fix=fix)


class UsageError(ZMaskError):
    """Options that contradict each other, or name something that does not exist."""

    exit_code = 2


class ParityError(ZMaskError):
    """The compiled graph does not do what the reference does."""

    exit_code = 3


class InputError(ZMaskError):
    """Something the user handed over cannot be used."""

    exit_code = 4


class ImageError(InputError):
    """An image file cannot be used."""


class DatasetError(InputError):
    """A folder of images or labels cannot be used."""


class NetworkError(InputError):
    """A network of the user's own cannot be used."""


class WeightsError(InputError):
    """A checkpoint cannot be used."""


class CalibrationError(InputError):
    """A calibration file cannot be used."""


class PatchError(InputError):
    """A patch file cannot be used."""


class BundleError(InputError):
    """A bundle cannot be used."""


class ShapeError(InputError):
    """A tensor has the wrong shape or dtype."""


class OutputError(ZMaskError):
    """A result cannot be written."""

    exit_code = 5


class BackendError(ZMaskError):
    """A compiler or a runner failed."""

    exit_code = 6


class BackendUnavailableError(BackendError):
    """A compiler or a runner, or what one of them needs, is not on this machine."""


class CompileError(BackendError):
    """A compiler refuses the graph."""


class DriftError(ZMaskError):
    """The scores of clean frames have left the calibrated distribution."""

    exit_code = 7


class FlagRateError(ZMaskError):
    """More frames are flagged than the calibration explains: attacks, or a drift beyond the threshold."""

    exit_code = 8


def shortage(exc: BaseException) -> BackendError | None:
    """The error that says what this machine, or a limit on this process, has too little of.

    Libraries raise whatever they like where memory is refused, and wrap it: causes and contexts are looked
    at too.

    Returns:
        None where ``exc`` comes of something else.
    """
    for raised in _chain(exc):
        if isinstance(raised, OSError) and raised.errno in (errno.EMFILE, errno.ENFILE):
            return BackendError(
                "This process may open no more files.",
                fix="Raise the limit: ulimit -n 1024, or more.",
            )
        said = "" if isinstance(raised, ZMaskError) else str(raised)
        no_memory = isinstance(raised, OSError) and raised.errno == errno.ENOMEM
        if isinstance(raised, MemoryError) or no_memory or _STARVED.search(said):
            return out_of_memory()
    return None


@contextlib.contextmanager
def shortages_named() -> Iterator[None]:
    """Raise :func:`shortage`'s error in the place of what a library, or Python, raises for it."""
    try:
        yield
    except Exception as exc:
        lack = shortage(exc)
        if lack is None:
            raise
        raise lack from exc


def out_of_memory() -> BackendError:
    """The error for memory that was refused; its fix names the limit on this process, where one is set."""
    limit = memory_limit()
    more = "Free memory" if limit is None else f"Raise the limit of {limit >> 20} MiB (ulimit -v)"
    return BackendError("Out of memory.", fix=f"{more}, or give a smaller --batch or --input-size.")


def memory_limit() -> int | None:
    """Bytes that this process may map, as ``ulimit -v`` sets it; None where there is no such limit."""
    with contextlib.suppress(ImportError):  # of Unix alone
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        return None if limit == resource.RLIM_INFINITY else limit
    return None


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ if exc.__suppress_context__ else exc.__context__

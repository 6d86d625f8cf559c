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

from typing import Any, ClassVar


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

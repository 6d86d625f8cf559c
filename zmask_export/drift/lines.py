"""The JSON lines that ``zmask-export run`` prints, read one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from zmask_export.errors import InputError
from zmask_export.spec import explain

OnBadLine = Literal["error", "skip"]
MAX_BYTES = 1 << 20
"""A longer line is none of ``run``'s."""


class Frame(BaseModel):
    """What a line must say of a frame; whatever else it says is left alone.

    Attributes:
        image: the file.
        flag: whether it was flagged.
        score: d; None or not finite where the engine gave no number, which raises the flag.
        threshold: that d was compared with.
        trusted: False where the mask covers more than was allowed; None where nothing was said.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    image: str
    flag: bool
    score: float | None
    threshold: float
    trusted: bool | None = None


def read_frames(
    file: BinaryIO, name: str, *, on_bad: OnBadLine = "error"
) -> Iterator[tuple[int, Frame | None]]:
    """Number and frame of every line that is not blank; None for a bad one that is skipped.

    Holds one line at a time, so that a stream may be endless.

    Args:
        file: what is read, as it comes.
        name: to call it by.
        on_bad: what to do with a line that is damaged.

    Raises:
        InputError: a damaged line, by its number, or what is read fails.
    """
    number = 0
    try:
        while line := file.readline(MAX_BYTES + 1):
            number += 1
            try:
                if line.strip():
                    yield number, _frame(line)
            except ValueError as exc:
                if on_bad == "error":
                    raise InputError(
                        f"Line {number} of {name} is none of zmask-export run: {exc}.",
                        fix="Give what run printed, or pass --on-bad-line skip.",
                    ) from exc
                yield number, None
            while len(line) > MAX_BYTES and not line.endswith(b"\n"):
                line = file.readline(MAX_BYTES + 1)
    except OSError as exc:
        raise unreadable(name, exc) from exc


def unreadable(name: str, exc: OSError) -> InputError:
    """The error for results that cannot be read."""
    return InputError(
        f"The results {name} cannot be read ({exc.strerror or exc}).",
        fix="Give a file that zmask-export run printed, or - for standard input.",
    )


def _frame(line: bytes) -> Frame:
    """The frame of a line.

    Raises:
        ValueError: what is wrong with it.
    """
    if len(line) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES >> 20} MiB")
    try:
        frame = Frame.model_validate_json(line)
    except ValidationError as exc:
        raise ValueError(explain(exc)) from exc
    if not (frame.threshold >= 0 and math.isfinite(frame.threshold)):
        raise ValueError("its threshold is no number from 0 on")
    if not frame.flag and (frame.score is None or not math.isfinite(frame.score)):
        raise ValueError("its score is no number, and yet nothing is flagged")
    return frame

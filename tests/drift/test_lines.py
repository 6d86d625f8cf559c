from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmask_export.drift.lines import MAX_BYTES, Frame, read_frames
from zmask_export.errors import InputError

GOOD: dict[str, Any] = {
    "image": "a.png", "flag": False, "score": 0.02, "threshold": 0.07, "covered": 0.0, "files": {},
}  # fmt: skip


def line(**changes: Any) -> bytes:
    """A line of run, changed."""
    return json.dumps(GOOD | changes).encode() + b"\n"


def read(data: bytes, *, on_bad: Any = "error") -> list[tuple[int, Frame | None]]:
    return list(read_frames(io.BytesIO(data), "x.jsonl", on_bad=on_bad))


BAD: dict[str, bytes] = {
    "words": b"shopping list\n",
    "a cut line": line()[:30],
    "another object": b'{"lambda": 1}\n',
    "a list": b"[1, 2]\n",
    "no UTF-8": b'{"image": "\xff"}\n',
    "zeros": b"\0\0\0\n",
    "a flag of words": line(flag="yes"),
    "a score of words": line(score="0.1"),
    "a score that is a truth": line(score=True),
    "a score that is no number, not flagged": line(score=float("nan")),
    "a score without end, not flagged": line(score=float("inf")),
    "no score, not flagged": line(score=None),
    "a threshold below 0": line(threshold=-1.0),
    "a threshold that is no number": line(threshold=float("nan")),
    "a deep nest": b"[" * 100_000 + b"\n",
    "an enormous line": b'{"image": "' + b"a" * (3 * MAX_BYTES) + b'"}\n',
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named_or_skipped(case: str) -> None:
    data = line() + BAD[case].rstrip(b"\n") + b"\n" + line(image="c.png")
    with pytest.raises(InputError, match=r"^Line 2 of x\.jsonl is none of zmask-export run: .+\."):
        read(data)
    found = read(data, on_bad="skip")
    assert [(number, frame and frame.image) for number, frame in found] == [
        (1, "a.png"), (2, None), (3, "c.png"),
    ]  # fmt: skip


def test_what_run_prints_is_read() -> None:
    data = b"\n" + line(objects=[{"label": "car"}]) + b"  \n" + line(trusted=False).rstrip()
    assert [(n, f and f.trusted) for n, f in read(data)] == [(2, None), (4, False)]
    assert read(b"") == []


@pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
def test_a_flagged_frame_needs_no_score(score: float | None) -> None:
    ((_, frame),) = read(line(flag=True, score=score))
    assert frame is not None
    assert frame.flag


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_skipped(data: bytes) -> None:
    for number, frame in read(data, on_bad="skip"):
        assert number >= 1
        assert frame is None or isinstance(frame, Frame)

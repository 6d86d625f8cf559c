"""docs/bad-inputs.md is what the tests saw, and what the code still says."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path

import click
import pytest

from tests import refusals
from tests.messages import patterns
from tests.refusals import COMMAND, ROOT, Refusal, refusal, render, rows_of

PAGE = ROOT / "docs" / "bad-inputs.md"
SAID = re.compile(r"Error: (?P<what>.+) Fix: (?P<fix>.+\.)")
BRIEF = 50
"""Most characters of a message that may be nearly all values."""
MADE = [
    Refusal("tests/cli/test_bad_images.py", "a | b_c *d*", "run", 4, "Error: <x> `y`. Fix: z\\."),
    Refusal("tests/cli/test_bad_images.py", "a", "fit", 4, "Error: no. Fix: yes."),
    Refusal("tests/foreign/test_bad_onnx.py", "a", "plan", 2, "Error: [a](b). Fix: {c}."),
]


def test_the_page_holds_what_it_must() -> None:
    page = PAGE.read_text("utf-8")
    rows = rows_of(page)
    assert COMMAND in page
    assert len(rows) >= 200
    assert {code for _, _, code, _ in rows} == {2, 4, 5, 6}
    assert len({verb for _, verb, _, _ in rows}) >= 8
    for what, verb, _, said in rows:
        assert what
        assert SAID.fullmatch(said), (what, verb, said)


def test_the_page_knows_no_machine() -> None:
    page = PAGE.read_text("utf-8")
    home = Path.home()
    for place in (str(ROOT), sys.prefix, "/tmp/", "pytest-of", str(home / "x").removesuffix("x")):  # noqa: S108
        assert place not in page, place


def test_what_the_page_says_is_still_said() -> None:
    folders = (ROOT / "zmask_export", Path(click.__file__ or "").parent)
    said = [pattern for folder in folders for pattern in patterns(folder)]
    # "NAME is VALUE." says little that could be looked for.
    brief = [pattern for folder in folders for pattern in patterns(folder, 5)]
    parts = set()
    for _, _, _, text in rows_of(PAGE.read_text("utf-8")):
        match = SAID.fullmatch(text)
        assert match is not None
        parts |= {match["what"], match["fix"]}
    gone = []
    for part in sorted(parts):
        allowed = [*said, *brief] if len(part) < BRIEF else said
        # Some of click's own sentences end without a stop, some get ours.
        if not any(p.fullmatch(part) or p.fullmatch(part[:-1]) for p in allowed):
            gone.append(part)
    assert gone == [], f"run: {COMMAND}"


def test_equal_rows_give_equal_bytes() -> None:
    shuffled = [*MADE, *MADE]
    random.Random(0).shuffle(shuffled)  # noqa: S311
    assert render(shuffled) == render(MADE)
    assert render(MADE).count("\n## ") == 2


def test_rows_come_back_as_they_were() -> None:
    rows = {(r.what, r.verb, r.code, r.said) for r in MADE}
    assert set(rows_of(render(MADE))) == rows


def test_paths_of_the_machine_are_shortened(tmp_path: Path) -> None:
    node = "tests/cli/test_x.py::test_an_image_of_one_pixel[a_b-c] (call)"
    error = f"Error: {tmp_path}/a/b.png and '{ROOT}/docs' are bad ({sys.prefix}/lib)."
    made = refusal(node, ("run", "x"), 4, error, "  Fix: Look.", refusals.roots(tmp_path))
    assert made.said == "Error: b.png and 'docs' are bad (lib). Fix: Look."
    assert made.what == "an image of one pixel: a b-c"
    assert (made.file, made.verb, made.code) == ("tests/cli/test_x.py", "run", 4)


def test_the_name_of_the_running_test_is_understood(tmp_path: Path) -> None:
    node = os.environ["PYTEST_CURRENT_TEST"]
    made = refusal(node, (), 4, "Error: a.", "  Fix: b.", [])
    assert made.file == "tests/test_refusals.py"
    assert made.what == "the name of the running test is understood"
    with pytest.raises(ValueError, match="no running test"):
        refusal("somewhere", (), 4, "", "", [])

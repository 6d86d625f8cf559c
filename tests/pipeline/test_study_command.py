"""evaluate --study through its entry point: what it prints and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import assert_refused, zmask
from zmask_export.pipeline.study import REPORT_HTML, REPORT_JSON


def test_the_command_prints_the_table_and_quick_is_quick(studies: Path, tmp_path: Path) -> None:
    given = ("evaluate", "--study", studies / "study.yaml", "--quick", "--limit", "1")
    outcome = zmask(*given, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == str(tmp_path / "out" / REPORT_HTML)
    assert [line.split(":")[0] for line in lines[1:3]] == ["  icnet, None", "  icnet, L"]
    record: Any = zmask(*given, "--out", tmp_path / "out", "--json").record
    assert (record["quick"], record["resamples"]) == (True, 50)
    assert record == json.loads((tmp_path / "out" / REPORT_JSON).read_text())


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (("--study", "study.yaml"), 2, ("--out",)),
        (("--study", "study.yaml", "--out", "x", "--seed", "1"), 2, ("--seed does not go",)),
        (("icnet", "--study", "study.yaml", "--out", "x"), 2, ("BUNDLE does not go",)),
        (("--study", "absent.yaml", "--out", "x"), 2, ("absent.yaml", "cannot be read")),
        (("--study", "study.yaml", "--out", "study.yaml/x"), 5, ("cannot be written",)),
        (("--study", "study.yaml", "--out", "x", "--reference"), 2, ("names no model",)),
        (("--study", "study.yaml", "--out", "x", "--reference", "--build"), 2, ("no bundle",)),
        (("--quick", "icnet", "--data", "d", "--patch", "p"), 2, ("--quick does not go",)),
        (("icnet", "--data", "d"), 2, ("Missing: --patch.",)),
        (("--study", "study.yaml", "--out", "x", "--data", "absent"), 4, ("absent",)),
    ],
)
def test_what_cannot_be_done_is_refused(
    studies: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(studies)
    outcome = zmask("evaluate", *given)
    assert_refused(outcome, code, *words)
    assert not (studies / "x" / REPORT_JSON).exists()

"""monitor through the program: what run printed, held against a calibration."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ONE_THREAD, Inputs, Outcome, assert_refused, command, zmask
from zmask_export.artifacts import calibration as calibrations

SHIPPED = Path(__file__).parent.parent.parent / "calib" / "icnet" / "calibration.safetensors"
HEADER = calibrations.load(SHIPPED).header
assert HEADER.fit is not None
CLEAN = np.array(HEADER.fit.clean_scores)
THRESHOLD = HEADER.threshold


def record(score: float | None, *, flag: bool = False, number: int = 0, **more: Any) -> str:
    """A line of run."""
    values = {"image": f"{number}.png", "flag": flag, "score": score, "threshold": THRESHOLD}
    return json.dumps(values | {"covered": 0.0, "files": {}} | more) + "\n"


def write(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(lines))
    return path


def clean(count: int, *, factor: float = 1.0, seed: int = 0) -> list[str]:
    """Lines whose scores are drawn from the calibration's, times a factor."""
    drawn = np.random.default_rng(seed).choice(CLEAN, count) * factor
    return [
        record(score, flag=score > THRESHOLD, number=n) for n, score in enumerate(drawn.tolist())
    ]


def test_frames_like_the_calibrations_are_steady(tmp_path: Path) -> None:
    results = write(tmp_path / "results.jsonl", clean(400))
    outcome = zmask("monitor", SHIPPED, results, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = outcome.record
    assert report["verdict"] == "steady"
    assert report["alarm"] is None
    assert (report["frames"], report["tested"], report["reference"]) == (400, 400, 100)
    assert report["evidence"] < report["alarm_at"] == 2
    assert abs(report["dependence"]) < 3 / 20
    assert report["calibrated"]["median"] == pytest.approx(np.median(CLEAN))
    assert report["flags"]["flagged"] == report["calibrated_flags"]["flagged"] == 0
    shown = zmask("monitor", SHIPPED, results)
    assert shown.code == 0
    assert "Verdict: steady" in shown.out
    assert "400 tested of 400 read" in shown.out


def test_a_drift_has_its_line_and_exit_code(tmp_path: Path) -> None:
    lines = clean(100) + clean(300, factor=0.4, seed=1)
    results = write(tmp_path / "results.jsonl", lines)
    outcome = zmask("monitor", SHIPPED, results)
    assert outcome.code == 7
    assert "Verdict: drift" in outcome.out
    note, error, fix = outcome.err.splitlines()
    assert note.startswith("drift: alarm at line ")
    assert error.startswith(
        "Error: The scores of clean frames have left the calibrated distribution"
    )
    assert fix.startswith("  Fix: ")
    whole = zmask("monitor", SHIPPED, results, "--json")
    stopped = zmask("monitor", SHIPPED, results, "--json", "--until-alarm")
    assert whole.code == stopped.code == 7
    alarm = whole.record["alarm"]
    assert 100 < alarm["line"] < 200
    assert alarm == stopped.record["alarm"]
    assert (stopped.record["frames"], whole.record["frames"]) == (alarm["line"], 400)


def test_frames_that_depend_on_each_other_are_told(tmp_path: Path) -> None:
    lines = [line for line in clean(60) for _ in range(10)]
    results = write(tmp_path / "results.jsonl", lines)
    outcome = zmask("monitor", SHIPPED, results)
    assert outcome.code == 7
    assert "too much: raise --every" in outcome.out
    assert "with --every" in outcome.err
    thinned = zmask("monitor", SHIPPED, results, "--every", 10, "--json")
    assert thinned.code == 0
    assert abs(thinned.record["dependence"]) < 3 / 60**0.5


def test_a_stricter_rate_alarms_later(tmp_path: Path) -> None:
    results = write(tmp_path / "results.jsonl", clean(400, factor=0.4))
    lines = [
        zmask("monitor", SHIPPED, results, "--json", "--false-alarms", rate).record["alarm"]["line"]
        for rate in ("0.1", "0.01", "0.0001")
    ]
    assert lines[0] < lines[1] < lines[2]


def test_flagged_frames_say_nothing_of_the_clean_ones(tmp_path: Path) -> None:
    lines = clean(200)
    alone = zmask("monitor", SHIPPED, write(tmp_path / "a", lines), "--json").record
    attacked = list(lines)
    for place in (3, 50, 120):
        attacked.insert(place, record(0.9, flag=True))
    attacked.append(record(None, flag=True, trusted=False))
    outcome = zmask("monitor", SHIPPED, write(tmp_path / "b", attacked), "--json")
    assert outcome.code == 0
    both = outcome.record
    assert (both["evidence"], both["tested"]) == (alone["evidence"], alone["tested"])
    assert (both["flags"]["flagged"], both["flags"]["frames"]) == (4, 204)
    assert (alone["untrusted"], both["untrusted"]) == (0, 1)


def test_more_flags_than_the_calibration_explains(tmp_path: Path) -> None:
    lines = clean(100) + [record(0.9, flag=True)] * 40
    outcome = zmask("monitor", SHIPPED, write(tmp_path / "x", lines))
    assert outcome.code == 8
    assert "Error: 40 of 140 frames are flagged, more than the 0 of 100 " in outcome.err
    every = write(tmp_path / "y", [record(0.9, flag=True)] * 40)
    report = zmask("monitor", SHIPPED, every, "--json")
    assert (report.code, report.record["verdict"], report.record["tested"]) == (8, "flags", 0)
    assert report.record["recent"] is None


def test_every_nth_frame_is_taken(tmp_path: Path) -> None:
    # The frames between would raise both alarms.
    lines = [line for good in clean(50) for line in (good, record(0.9, flag=True), record(0.0))]
    results = write(tmp_path / "x", lines)
    assert zmask("monitor", SHIPPED, results, "--json").code == 7
    outcome = zmask("monitor", SHIPPED, results, "--every", 3, "--json")
    assert outcome.code == 0
    assert (outcome.record["frames"], outcome.record["tested"]) == (150, 50)
    assert outcome.record["flags"]["frames"] == 50
    # A line that is none counts for no frame.
    damaged = write(tmp_path / "y", ["shopping list\n", *lines])
    skipped = zmask("monitor", SHIPPED, damaged, "--every", 3, "--on-bad-line", "skip", "--json")
    assert skipped.record | {"frames": 150, "bad_lines": 0} == outcome.record


def test_bad_lines_end_it_or_are_counted(tmp_path: Path) -> None:
    lines = clean(20)
    results = write(tmp_path / "x.jsonl", [*lines[:6], "shopping list\n", *lines[6:]])
    assert_refused(zmask("monitor", SHIPPED, results), 4, "Line 7 of", "--on-bad-line skip")
    assert zmask("monitor", SHIPPED, results, "--json").record["error"] == "InputError"
    skipped = zmask("monitor", SHIPPED, results, "--on-bad-line", "skip", "--json")
    assert skipped.code == 0
    assert (skipped.record["bad_lines"], skipped.record["tested"]) == (1, 20)


def test_what_cannot_be_monitored(tmp_path: Path) -> None:
    good = write(tmp_path / "good", clean(3))
    empty = write(tmp_path / "empty", [])
    mixed = write(tmp_path / "mixed", [record(0.01), record(0.01, threshold=0.5)])
    low = write(tmp_path / "low", [record(0.01, flag=True, threshold=0.0)])
    bare = calibrations.load(SHIPPED).with_header(threshold=None, fit=None)
    bare.save(tmp_path / "bare.safetensors")
    kept = calibrations.load(SHIPPED).with_header(fit=None)
    kept.save(tmp_path / "kept.safetensors")
    for arguments, code, word in [
        ((SHIPPED, tmp_path / "nosuch"), 4, "cannot be read"),
        ((SHIPPED, tmp_path), 4, "cannot be read"),
        ((SHIPPED, empty), 4, "holds no frame"),
        ((SHIPPED, mixed), 4, "Line 2 of"),
        ((SHIPPED, low), 2, "flags every clean image of the calibration"),
        ((SHIPPED, good, "--false-alarms", "0"), 2, "not in (0, 1)"),
        ((SHIPPED, good, "--every", "0"), 2, "0 is not in the range"),
        ((tmp_path / "bare.safetensors", good), 4, "statistics only"),
        ((tmp_path / "kept.safetensors", good), 4, "keeps no scores"),
        ((tmp_path, good), 4, "no bundle"),
        ((good, good), 4, "no safetensors file"),
    ]:
        assert_refused(zmask("monitor", *arguments), code, word)


def test_a_stream_is_watched_as_it_comes() -> None:
    with subprocess.Popen(
        command("monitor", SHIPPED, "-", "--json"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=ONE_THREAD,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout is not None
        process.stdin.writelines(clean(60, factor=0.3))
        process.stdin.flush()
        # The stream has not ended yet.
        assert process.stderr.readline().startswith("drift: alarm at line ")
        process.stdin.writelines(clean(40))
        process.stdin.close()
        report = json.loads(process.stdout.read())
    assert process.returncode == 7
    assert (report["frames"], report["verdict"]) == (100, "drift")


def test_a_stream_that_is_closed_is_one_error() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" <&-', *command("monitor", SHIPPED)],
        capture_output=True, text=True, check=False, env=ONE_THREAD,
    )  # fmt: skip
    assert_refused(Outcome(done.returncode, done.stdout, done.stderr), 4, "it is closed")


def test_a_bundle_and_what_run_printed_of_it(inputs: Inputs, bundle: Path, tmp_path: Path) -> None:
    lines = zmask("run", bundle, inputs.images, "--max-covered", "0.5", "--threshold", "1e30").out
    outcome = zmask("monitor", bundle, write(tmp_path / "x", [lines]), "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.record["tested"] == 3

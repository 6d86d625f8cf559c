"""The command that kills verbs: a short run of it, and that it finds what it looks for."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import kill
import numpy as np
import pytest
from killing import campaign, cases, checks
from killing.campaign import Campaign, Tally, Undisturbed
from killing.cases import Case
from killing.process import Ended
from PIL import Image

from tests.small import exported, fresh, random_calibration, tiny_bare, tiny_defense
from zmask_export.artifacts.manifest import FILE_NAME
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.pipeline.bundle import signature_of, write_bundle
from zmask_export.presets import find
from zmask_export.spec import DetectorLimits, Policy
from zmask_export.verify.report import ParityReport

CASE = Case("case", ("verb",))


def test_verbs_are_killed_and_end_as_if_they_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("OMP_NUM_THREADS", "PYTHONPATH"):  # the command sets them
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(cases, "EPOCHS", 10)
    finds = str(tmp_path / "finds")
    with pytest.raises(SystemExit) as ended:
        kill.main(["--verb", "craft", "--kills", "3", "--finds", finds, "--json"])
    assert ended.value.code == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kills"] == record["nothing"] + record["kept"] + record["writing"] == 3
    assert record["completed"] >= 1
    assert [record[kind] for kind in kill.FAULTS] == [[], [], [], []]
    assert list(tmp_path.iterdir()) == []


def _look(folder: Path, after: checks.Files, before: checks.Files | None = None) -> list[str]:
    return list(checks.look(folder, before or {}, after).faults)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, a calibration and a patch."""
    folder = tmp_path_factory.mktemp("results")
    calibration = random_calibration(tiny_bare(), tiny_defense())
    calibration.save(folder / "mine.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "patch.png")
    fused = fuse(fresh(exported()), calibration, FuseOptions(Policy.DETECT))
    tolerances = find("icnet", None).preset.tolerances["fp32"]
    parity = ParityReport(
        runner="test", policy="detect", threshold=1, band=0, tolerances=tolerances, comparisons=()
    )  # fmt: skip
    write_bundle(
        folder / "bundle", force=False, calibration=calibration, policy=Policy.DETECT,
        classes=tuple("abcde"), limits=DetectorLimits(), tolerances=tolerances, batch=None,
        onnx_model=fused.to_bytes(), signature=signature_of(fused), engines=(), engine_batch=None,
        parity=parity,
    )  # fmt: skip
    return folder


def test_whole_results_are_no_fault(results: Path) -> None:
    files = checks.files_of(results)
    assert {"mine.safetensors", "patch.png", f"bundle/{FILE_NAME}"} < files.keys()
    assert _look(results, files) == []


@pytest.mark.parametrize("name", ["mine.safetensors", "patch.png"])
def test_a_truncated_file_is_broken(name: str, results: Path, tmp_path: Path) -> None:
    data = (results / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-40])
    other, unreadable = _look(tmp_path, {name: data})
    assert other == f"{name} is neither what was there nor the result"
    assert unreadable.startswith(f"{name} does not load: ")


def test_a_bundle_without_one_of_its_files_is_broken(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "bundle", tmp_path / "bundle")
    (tmp_path / "bundle" / "parity.json").unlink()
    incomplete, unreadable = _look(tmp_path, checks.files_of(results))
    assert incomplete.startswith("the bundle bundle holds ")
    assert unreadable.startswith("bundle does not load: ")


def test_what_is_hidden_is_told_apart(tmp_path: Path) -> None:
    for name in (".out.12.partial", ".out.34.old.partial", "..out.progress.56.partial"):
        (tmp_path / name).write_bytes(b"half")
    left = checks.look(tmp_path, {}, {})
    assert (left.writers, left.moved, left.faults) == ({12, 34, 56}, {"out"}, ())
    (tmp_path / ".out.progress").write_bytes(b"half")
    (tmp_path / ".strange").write_bytes(b"")
    damaged, strange = _look(tmp_path, {})
    assert damaged.startswith("the progress .out.progress cannot be read (")
    assert strange == ".strange was left"


def test_work_that_is_gone_is_lost() -> None:
    nothing = checks.Left({}, frozenset(), frozenset(), {})
    kept = replace(nothing, visible={"cell": b"x"}, progress={".out.progress": 5})
    tally = Tally("verb")
    campaign._count(CASE, 12, nothing, kept, tally)
    assert (tally.kills, tally.kept, tally.resumed, tally.faults) == (1, 1, 0, [])
    campaign._count(CASE, 12, kept, replace(nothing, writers=frozenset({12})), tally)
    assert (tally.kills, tally.writing, tally.resumed) == (2, 1, 1)
    assert tally.faults == [
        "lost: case: cell is gone", "lost: case: .out.progress fell from 5 to 0"
    ]  # fmt: skip


def test_results_are_compared(tmp_path: Path) -> None:
    place, tally = Campaign(tmp_path, 0, tmp_path / "finds"), Tally("verb")
    wanted = Undisturbed({"out": b"1"}, "said")
    for name, data in {"out": b"2", ".rest": b""}.items():
        (place.folder / name).write_bytes(data)
    place._compare(CASE, wanted, Ended(0, "other", ""), tally)
    place._compare(CASE, wanted, Ended(1, "", "why"), tally)
    assert tally.faults == [
        "lost: case: another out",
        "lost: case: says other",
        "uncaught: case: exit code 1: why",
        "left: case: .rest",
    ]
    kill.show([tally])

"""The CamVid study as it is shipped: everything it names is there, and the quick form runs."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Make, command, link_tree
from tests.demos import build_demo
from zmask_export import presets
from zmask_export.evaluate.plan import attacks
from zmask_export.evaluate.report import StudyReport
from zmask_export.evaluate.study import load_study
from zmask_export.models import registry
from zmask_export.pipeline.study import REPORT_JSON

ROOT = Path(__file__).parents[2]
CAMVID = ROOT.parent / "shared" / "data" / "camvid"
STUDY = ROOT / "calib" / "camvid" / "study.yaml"
README = (ROOT / "README.md").read_text("utf-8")
DOCS = ROOT / "docs" / "camvid"
NETWORKS = ["icnet", "ddrnet", "bisenet", "camvid-retinanet"]
MOST_S = 300


def test_the_study_names_nothing_that_is_absent() -> None:
    study = load_study(STUDY)
    assert list(study.networks) == NETWORKS
    for name, network in study.networks.items():
        present, left_out = attacks(network)
        assert left_out == [], name
        detects = registry.get(network.model).task == "detection"
        assert len(present) == (5 if detects else 5 + 10 + 2 * 11)
        assert detects or (network.masknet is not None and network.masknet.is_file())


def test_the_documented_study_is_what_its_numbers_give(tmp_path: Path) -> None:
    tool = ROOT / "tools" / "draw_study.py"
    given = ("--report", DOCS / "report.json", "--out", tmp_path)
    subprocess.run([sys.executable, tool, *given], check=True)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in DOCS.iterdir())
    assert "icnet-beta.svg" in written
    assert (tmp_path / "README.md").read_text("utf-8") == (DOCS / "README.md").read_text("utf-8")


def test_the_documented_study_measured_what_is_shipped() -> None:
    report = StudyReport.model_validate_json((DOCS / "report.json").read_text("utf-8"))
    assert not report.quick
    for network in report.networks:
        assert network.left_out == ()
        assert network.input_size == presets.find(network.model).preset.input_size
        assert len(network.table) == 5
        if network.task == "segmentation":
            assert len(network.beta) == 10
            assert {n: len(rows) for n, rows in network.alpha.items()} == {"mask": 11, "flag": 11}


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not beside this checkout")
def test_the_whole_study_is_one_command_and_quick_is_quick(tmp_path: Path, make_once: Make) -> None:
    """With the bundles of the demos that other tests use too; the last one it builds itself."""
    shutil.copytree(ROOT / "calib", tmp_path / "calib")
    started = time.monotonic()
    # Backwards, for the tests of the README build the first at the same time.
    for model in reversed(NETWORKS[:-1]):
        built = make_once(f"demos/{model}", functools.partial(build_demo, model))
        link_tree(built, tmp_path / "engines" / model)
    (line,) = re.findall(r"^    zmask-export (evaluate --study .*)$", README, re.MULTILINE)
    given = line.replace("CAMVID", str(CAMVID)).split()
    subprocess.run([*command(*given), "--quick"], cwd=tmp_path, check=True)
    assert time.monotonic() - started < MOST_S
    report = StudyReport.model_validate_json((tmp_path / "study" / REPORT_JSON).read_text("utf-8"))
    assert [network.model for network in report.networks] == NETWORKS
    assert sorted(path.name for path in (tmp_path / "engines").iterdir()) == sorted(NETWORKS)
    assert report.left_out == ()
    for network in report.networks:
        assert network.left_out == ()
        assert set(network.table[-1].detection) == {"zmask", "hn", "fpda", "fpda+"}
        rivals = {"masknet"} if network.task == "segmentation" else set()
        assert set(network.table[-1].quality) == {"none", "zmask", "lgs", "oracle"} | rivals

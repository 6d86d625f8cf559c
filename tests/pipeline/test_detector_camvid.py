"""evaluate on the demo detector and CamVid: one bundle, its table, and a study of bundle and reference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.conftest import zmask
from zmask_export import presets
from zmask_export.evaluate.report import StudyReport
from zmask_export.evaluate.scores import DetectionScores
from zmask_export.pipeline.study import REPORT_JSON

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"
CALIB = presets.folder()
WEIGHTS = CALIB / "camvid-retinanet" / "weights.safetensors"
PATCH = CALIB / "bisenet" / "patch.png"
"""Crafted against BiSeNet, whose body the detector has."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not beside this checkout"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the demo detector, calibrated on some of CamVid's training images."""
    root = tmp_path_factory.mktemp("demo")
    (root / "images").mkdir()
    for path in sorted((CAMVID / "train" / "images").iterdir())[::30]:
        os.symlink(path, root / "images" / path.name)
    outcome = zmask(
        "build", "--model", "camvid-retinanet", "--weights", WEIGHTS, "--images", root / "images",
        "--patch", PATCH, "--target", "onnx", "--out", root / "bundle",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    return root / "bundle"


def test_the_attack_takes_map_and_the_oracle_gives_it_back(demo: Path) -> None:
    outcome = zmask("evaluate", demo, "--data", CAMVID, "--patch", PATCH, "--limit", "8", "--json")
    assert outcome.code == 0, outcome.err
    scores = DetectionScores.model_validate_json(outcome.out)
    numbers = [scores.clean, scores.attacked, scores.defended, scores.oracle, scores.clean_50_95]
    clean, attacked, defended, oracle, strict = (number or 0.0 for number in numbers)
    assert scores.images == 8
    assert clean >= 0.3
    assert attacked < clean * 2 / 3
    assert attacked < defended
    assert attacked < oracle
    assert 0.1 < strict < clean
    assert scores.auc is not None
    assert scores.auc >= 0.98
    assert scores.intervals["clean"] is not None


def test_a_study_of_the_bundle_and_of_its_reference_agree(demo: Path, tmp_path: Path) -> None:
    network = {
        "bundle": str(demo),
        "model": "camvid-retinanet",
        "weights": str(WEIGHTS),
        "calibration": str(demo / "calibration.safetensors"),
        "patches": {"L": str(PATCH), "S": "nosuch.png"},
        "masknet": str(CALIB / "camvid" / "bisenet" / "masknet.safetensors"),
        "detectors": {"split": "train", "limit": 4},
    }
    study = {"about": "Demo", "limit": 6, "resamples": 20, "networks": {"demo": network}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    given = ("evaluate", "--study", tmp_path / "study.yaml", "--data", CAMVID)
    reports = []
    for name, options in (("bundle", ()), ("reference", ("--reference",))):
        outcome = zmask(*given, *options, "--out", tmp_path / name)
        assert outcome.code == 0, outcome.err
        text = (tmp_path / name / REPORT_JSON).read_text("utf-8")
        reports.append(StudyReport.model_validate_json(text).networks[0])
    for network_report, source in zip(reports, ("bundle", "reference"), strict=True):
        assert (network_report.task, network_report.source) == ("detection", source)
        assert [row.attack for row in network_report.table] == ["None", "L"]
        assert "patch S" in [item.what for item in network_report.left_out]
        patched = network_report.table[1]
        assert set(patched.map_50) == {"none", "zmask", "lgs", "masknet", "oracle"}
        assert set(patched.detection) == {"zmask", "hn", "fpda", "fpda+"}
    for ours, theirs in zip(reports[0].table, reports[1].table, strict=True):
        for subject, estimate in ours.map_50.items():
            assert estimate.value == pytest.approx(theirs.map_50[subject].value, abs=5e-3), subject
        for name, found in ours.detection.items():
            assert found.auc.value == theirs.detection[name].auc.value

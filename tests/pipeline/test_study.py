"""evaluate --study, on a small data set and a bundle of random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from tests.conftest import Inputs, assert_refused, contents, zmask
from tests.pipeline.conftest import BETAS, Watch, bytes_of, changed
from zmask_export.errors import BundleError
from zmask_export.evaluate.report import StudyReport
from zmask_export.models import registry, weights
from zmask_export.pipeline.network import NetworkOptions, open_network
from zmask_export.pipeline.study import REPORT_HTML, REPORT_JSON, run_study
from zmask_export.pipeline.study_network import deepest


@pytest.fixture(scope="module")
def whole(studies: Path) -> tuple[Path, StudyReport]:
    """The study, run in one go."""
    out = studies / "whole"
    return out, run_study(studies / "study.yaml", out)


def test_a_study_fills_the_table_and_the_series(whole: tuple[Path, StudyReport]) -> None:
    out, report = whole
    (network,) = report.networks
    assert (network.source, network.images, network.model) == ("bundle", 2, "icnet")
    assert [row.attack for row in network.table] == ["None", "L"]
    assert list(network.table[0].miou) == ["none", "zmask", "lgs", "masknet"]
    assert list(network.table[1].miou) == ["none", "zmask", "lgs", "masknet", "oracle"]
    assert [row.value for row in network.beta] == BETAS
    assert [row.attack for row in network.alpha["flag"]] == ["flag 0.0"]
    assert set(network.alpha["flag"][0].miou) == {"none", "zmask"}
    assert set(network.roc) == {"L"}
    assert StudyReport.model_validate_json((out / REPORT_JSON).read_text()) == report
    page = (out / REPORT_HTML).read_text()
    assert page.count("data:image/jpeg") == 4
    for word in ("A small study", "Z-Mask", "MaskNet", "LGS", "beta 0.5", "flag 0.0"):
        assert word in page


def test_what_is_not_there_is_named(whole: tuple[Path, StudyReport]) -> None:
    out, report = whole
    found = [f"{item.what}: {item.why}" for item in report.networks[0].left_out]
    assert "patch M: the study names no file for it" in found
    (line,) = (line for line in found if line.startswith("patch S: "))
    assert line.endswith("S.png is not there")
    assert [(item.what, item.why) for item in report.left_out] == [
        ("other", "engines/other is not there")
    ]
    for line in (*found, "other: engines/other is not there"):
        assert line in (out / REPORT_HTML).read_text()


@pytest.mark.parametrize("stop", [6, 25])
def test_an_interrupted_study_ends_with_the_same_bytes(
    studies: Path, whole: tuple[Path, StudyReport], tmp_path: Path, stop: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_study(studies / "study.yaml", tmp_path / "out", reporter=Watch(stop))
    done = [n for n in contents(tmp_path / "out") if n.endswith(".safetensors")]
    # Images are counted over cells of two; a cell is written before the next begins.
    assert len(done) == (stop - 1) // 2
    again = Watch()
    run_study(studies / "study.yaml", tmp_path / "out", reporter=again)
    cells = sum(name.endswith(".safetensors") for name in contents(whole[0]))
    assert again.totals == {"icnet": 2 * (cells - len(done))}
    assert bytes_of(tmp_path / "out") == bytes_of(whole[0])


def test_only_what_changed_is_measured_again(
    studies: Path, whole: tuple[Path, StudyReport], tmp_path: Path
) -> None:
    out = shutil.copytree(whole[0], tmp_path / "out")
    before = bytes_of(out)
    cells = sum(name.endswith(".safetensors") for name in before)
    watch = Watch()
    assert run_study(studies / "study.yaml", out, reporter=watch) == whole[1]
    assert watch.totals == {"icnet": 0}
    assert bytes_of(out) == before

    other = changed(studies, "lesser", patches={"L": "beta-0.5.png"})
    watch = Watch()
    run_study(other, out, reporter=watch)
    assert watch.totals == {"icnet": 2 * 5}  # L: none, Z-Mask, LGS, MaskNet, oracle
    with pytest.raises(KeyboardInterrupt):
        run_study(studies / "study.yaml", out, limit=1, reporter=(watch := Watch(1)))
    assert watch.totals == {"icnet": cells}


def test_an_absent_bundle_is_built_where_its_model_is_named(
    inputs: Inputs, studies: Path, tmp_path: Path
) -> None:
    path = changed(
        studies, "unbuilt", bundle=str(tmp_path / "new"), model="icnet", preset=str(inputs.preset),
        weights=str(seeded_weights(tmp_path)), calibration=str(calibration_of(studies)),
        beta=None, alpha={}, patches={},
    )  # fmt: skip
    zmask_study = ("evaluate", "--study", path, "--limit", "1", "--out", tmp_path / "out")
    assert_refused(zmask(*zmask_study), 2, "new is not there")
    outcome = zmask(*zmask_study, "--build")
    assert outcome.code == 0, outcome.err
    assert "protected.onnx" in contents(tmp_path / "new")
    assert not any(name.endswith(".engine") for name in contents(tmp_path / "new"))


def test_a_series_may_take_fewer_images_than_the_table(
    studies: Path, whole: tuple[Path, StudyReport], tmp_path: Path
) -> None:
    content = yaml.safe_load((studies / "study.yaml").read_text())
    path = studies / "fewer.yaml"
    path.write_text(yaml.safe_dump({**content, "series_limit": 1}))
    out = shutil.copytree(whole[0], tmp_path / "out")
    watch = Watch()
    (network,) = run_study(path, out, reporter=watch).networks
    assert network.table == whole[1].networks[0].table
    rows = (*network.beta, *network.alpha["flag"])
    assert watch.totals == {"icnet": sum(len(row.miou) for row in rows)}
    for row in rows:
        assert all(estimate.images == 1 for estimate in row.miou.values())
        assert row.detection["zmask"].auc.images == 1


def test_one_patch_under_two_names_is_measured_once(studies: Path, tmp_path: Path) -> None:
    path = changed(studies, "twice", patches={"L": "beta-1.0.png"})
    watch = Watch()
    (network,) = run_study(path, tmp_path / "out", reporter=watch).networks
    cells = [n for n in contents(tmp_path / "out") if n.endswith(".safetensors")]
    assert not any("beta-1.0" in name for name in cells)
    assert watch.totals == {"icnet": 2 * len(cells)}
    assert network.beta[1].attack == "beta 1.0"
    for subject, estimate in network.beta[1].miou.items():
        assert estimate == network.table[1].miou[subject]


def test_reference_and_bundle_agree_and_detectors_are_measured(
    inputs: Inputs, studies: Path, whole: tuple[Path, StudyReport], tmp_path: Path
) -> None:
    path = changed(
        studies, "reference", model="icnet", preset=str(inputs.preset),
        weights=str(seeded_weights(tmp_path)), beta=None, alpha={},
        calibration=str(calibration_of(studies)), detectors={"images": str(inputs.images)},
    )  # fmt: skip
    report = run_study(path, tmp_path / "reference", reference=True)
    (network,), (expected,) = report.networks, whole[1].networks
    assert network.source == "reference"
    assert network.threshold == expected.threshold
    for row, other in zip(network.table, expected.table, strict=True):
        for subject, estimate in row.miou.items():
            assert estimate.value == pytest.approx(other.miou[subject].value, abs=2e-3)
    found = network.table[1].detection
    assert list(found) == ["zmask", "fpda", "fpda+", "hn"]
    assert found["zmask"].auc.value == expected.table[1].detection["zmask"].auc.value
    assert [item.what for item in report.left_out] == ["other"]

    watch = Watch()
    run_study(path, tmp_path / "bundle", limit=1, reporter=watch)
    assert watch.totals["HN, FPDA"] == 3

    given = {
        "model": "icnet",
        "preset": str(inputs.preset),
        "weights": str(seeded_weights(tmp_path)),
    }
    path = changed(studies, "split", **given, detectors={"split": "train", "limit": 1})
    run_study(path, tmp_path / "split", limit=1, reporter=(watch := Watch()))
    assert watch.totals["HN, FPDA"] == 1
    path = changed(studies, "no-split", **given, detectors={"split": "nosuch"})
    (network,) = run_study(path, tmp_path / "split", limit=1).networks
    assert "rivals HN, FPDA" in [item.what for item in network.left_out]


def calibration_of(studies: Path) -> Path:
    content = yaml.safe_load((studies / "study.yaml").read_text())
    return Path(content["networks"]["icnet"]["bundle"]) / "calibration.safetensors"


def seeded_weights(folder: Path) -> Path:
    """The weights that ``--random-weights`` gives, as a file."""
    path = folder / "weights.safetensors"
    save_file(weights.random_network(registry.get("icnet")).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("model", "tap"),
    [
        ("icnet", "conv5_4_k1"),
        ("ddrnet", "rbb2"),
        ("bisenet", "ct1"),
        ("camvid-retinanet", "context-16"),
    ],
)
def test_detectors_read_the_deepest_layer(inputs: Inputs, model: str, tap: str) -> None:
    options = NetworkOptions(model=model, preset=str(inputs.preset), random_weights=True)
    assert deepest(open_network(options)) == tap


def test_a_bundle_of_other_weights_than_the_model_is_refused(
    inputs: Inputs, studies: Path, tmp_path: Path
) -> None:
    path = changed(
        studies, "foreign", model="icnet", preset=str(inputs.preset),
        weights=str(inputs.weights), detectors={"images": str(inputs.images)},
    )  # fmt: skip
    with pytest.raises(BundleError, match="other weights"):
        run_study(path, tmp_path / "out")

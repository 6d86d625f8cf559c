"""evaluate --study of detectors: a tiny one, and HN and FPDA on the demo's network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from tests.conftest import Inputs, contents, zmask
from tests.drawn import SIZE
from tests.pipeline.conftest import TinyDetector, Watch, bytes_of
from zmask_export.data.images import ImageFolder
from zmask_export.defense.baselines.hyperneuron import HyperNeuron
from zmask_export.errors import DatasetError
from zmask_export.evaluate import cells
from zmask_export.evaluate.objects import Finds, ObjectDetection
from zmask_export.evaluate.report import StudyReport
from zmask_export.evaluate.study import DetectorSource
from zmask_export.models import registry, weights
from zmask_export.pipeline.network import NetworkOptions, open_network
from zmask_export.pipeline.progress import Silent
from zmask_export.pipeline.study import REPORT_HTML, REPORT_JSON, run_study
from zmask_export.pipeline.study_network import rival_detectors

IMAGES = 4
# Clean: none, Z-Mask, LGS. L: these and the oracle. Beta: none, Z-Mask, LGS. Adv-Flag: none, Z-Mask.
CELLS = 3 + 4 + 3 + 2


@pytest.fixture(scope="module")
def study(tiny_detector: TinyDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(5)
    for name in ("L", "beta-0.5", "flag-0.0"):
        noise = rng.integers(0, 256, (20, 26, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{name}.png")
    network = {
        "bundle": str(tiny_detector.bundle),
        "patches": {"L": "L.png"},
        "beta": {"files": "beta-{value}.png", "values": [0.5]},
        "alpha": {"flag": {"files": "flag-{value}.png", "values": [0]}},
    }
    content = {"about": "Rectangles", "resamples": 50, "networks": {"tiny": network}}
    (folder / "study.yaml").write_text(
        yaml.safe_dump({**content, "data": str(tiny_detector.camvid)})
    )
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def whole(study: Path) -> tuple[Path, StudyReport]:
    """The study, run in one go."""
    return study.parent / "whole", run_study(study, study.parent / "whole")


def test_the_table_and_the_series_hold_map(whole: tuple[Path, StudyReport]) -> None:
    out, report = whole
    (network,) = report.networks
    assert (network.task, network.images) == ("detection", IMAGES)
    clean, patched = network.table
    assert list(clean.map_50) == list(clean.map_50_95) == ["none", "zmask", "lgs"]
    assert list(patched.map_50) == list(patched.map_50_95) == ["none", "zmask", "lgs", "oracle"]
    for row in (*network.table, *network.beta, *network.alpha["flag"]):
        assert row.miou == {}
        assert row.quality == row.map_50
        for estimate in row.map_50.values():
            assert estimate.value is not None
            assert 0 <= estimate.value <= 1
    assert clean.map_50["none"].value is not None
    assert clean.map_50["none"].value > 0.5
    assert patched.detection["zmask"].auc.value is not None
    assert (patched.flagged, patched.mask_iou) != (None, None)
    assert [row.map_50_95 for row in network.beta] == [{}]
    assert StudyReport.model_validate_json((out / REPORT_JSON).read_text()) == report
    page = (out / REPORT_HTML).read_text()
    assert page.count("data:image/jpeg") == 4
    for word in ("Table 4(a)", "mAP@0.5", "mAP@[.5:.95]", "Objects found, defended", "Figure 13"):
        assert word in page
    assert "mIoU" not in page


def test_a_cell_keeps_what_was_found(whole: tuple[Path, StudyReport]) -> None:
    path = whole[0] / "cells" / "tiny" / "L.none.safetensors"
    data = path.read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    (identity,) = head["__metadata__"].values()
    cell = cells.load(path, identity, ObjectDetection())
    assert cell is not None
    assert isinstance(cell.record, Finds)
    assert len(cell.record.found) == len(cell.record.truths) == IMAGES
    assert sum(len(found) for found in cell.record.found) > 0


def test_an_interrupted_study_ends_with_the_same_bytes(
    study: Path, whole: tuple[Path, StudyReport], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_study(study, out, reporter=Watch(4 * IMAGES + 2))
    done = sum(name.endswith(".safetensors") for name in contents(out))
    assert done == 4
    run_study(study, out, reporter=(again := Watch()))
    assert again.totals == {"tiny": IMAGES * (CELLS - done)}
    assert bytes_of(out) == bytes_of(whole[0])
    run_study(study, out, reporter=(again := Watch()))
    assert again.totals == {"tiny": 0}


def test_other_boxes_are_measured_again(
    study: Path, whole: tuple[Path, StudyReport], tiny_detector: TinyDetector, tmp_path: Path
) -> None:
    """The images are the same; one label map has an object more."""
    moved = tmp_path / "camvid" / "val"
    for folder in ("images", "labels"):
        (moved / folder).mkdir(parents=True)
        for path in (tiny_detector.camvid / "val" / folder).iterdir():
            (moved / folder / path.name).write_bytes(path.read_bytes())
    before = bytes_of(whole[0])
    again = Watch()
    run_study(study, whole[0], data=moved.parent, reporter=again)
    assert again.totals == {"tiny": 0}
    assert bytes_of(whole[0]) == before
    labels = np.asarray(Image.open(moved / "labels" / "0.png")).copy()
    labels[:20, :20] = 9
    Image.fromarray(labels).save(moved / "labels" / "0.png")
    run_study(study, tmp_path / "out", data=moved.parent, reporter=(again := Watch()))
    text = (tmp_path / "out" / REPORT_JSON).read_text()
    first, other = whole[1].networks[0], StudyReport.model_validate_json(text).networks[0]
    assert first.table[0].map_50["none"] != other.table[0].map_50["none"]
    with pytest.raises(KeyboardInterrupt):
        run_study(study, whole[0], data=moved.parent, reporter=(again := Watch(1)))
    assert again.totals == {"tiny": IMAGES * CELLS}


def test_the_command_prints_map(study: Path, tmp_path: Path) -> None:
    outcome = zmask("evaluate", "--study", study, "--quick", "--limit", "1", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "tiny, L: Z-Mask " in outcome.out
    assert "mIoU" not in outcome.out


def test_a_folder_without_labels_is_refused(study: Path, tmp_path: Path, inputs: Inputs) -> None:
    with pytest.raises(DatasetError, match="no known layout"):
        run_study(study, tmp_path / "out", data=inputs.images)


def test_rivals_read_a_detectors_layer(inputs: Inputs, tmp_path: Path) -> None:
    """HN's score by hand: the mean of |z| over the layer, with statistics of the same images."""
    path = tmp_path / "weights.safetensors"
    save_file(weights.random_network(registry.get("camvid-retinanet")).state_dict(), path)
    opened = open_network(
        NetworkOptions(model="camvid-retinanet", preset=str(inputs.preset), weights=path)
    )
    bare = opened.reading({"deep": "backbone.body.context_path.layer2"})
    frames = [frame for frame in ImageFolder(inputs.images, SIZE).frames() if frame]
    images = torch.stack([torch.from_numpy(f.image.copy()).permute(2, 0, 1) / 255 for f in frames])
    with torch.inference_mode():
        features = bare(images)[1]["deep"]
        expected = HyperNeuron(features.mean(0), features.std(0, unbiased=False))(features)

    source = DetectorSource(images=inputs.images)
    entry = rival_detectors(source, inputs.images, opened, Silent())
    assert entry.identity["tap"] == "context-16"
    subject = entry.open()
    for image, score in zip(images, expected, strict=True):
        outcome = subject(image[None].numpy(), np.zeros(SIZE, bool))
        assert set(outcome.scores) == {"hn", "fpda", "fpda+"}
        assert outcome.scores["hn"] == pytest.approx(float(score), rel=1e-3)
        assert (outcome.prediction, outcome.detections) == (None, None)

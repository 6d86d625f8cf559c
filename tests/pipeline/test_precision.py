"""build --precision and verify --data, on ICNet with random weights and a small input."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from tests.conftest import Inputs, Outcome, assert_refused, contents, link_tree, zmask
from tests.drawn import PATCH_SIZE, PRESET, SIZE
from zmask_export.attack import patch as patches
from zmask_export.backends import tensorrt
from zmask_export.data.images import to_float
from zmask_export.data.scene import draw_scene
from zmask_export.pipeline.network import NetworkOptions, open_network
from zmask_export.pipeline.precision import RANGE_SCENES, range_images, range_patch
from zmask_export.runtime.protected import load
from zmask_export.spec import KEPT


def _products(graph: onnx.GraphProto) -> list[str]:
    """Names of all convolutions, those of branches too."""
    names = [node.name for node in graph.node if node.op_type == "Conv"]
    for node in graph.node:
        for attribute in node.attribute:
            names += _products(attribute.g)
    return names


LOWER = """\
  bf16: {logits_atol: 0.5, logits_rtol: 0.1, logits_outliers: 0.01, predictions: 0.2, score_rtol: 0.3,
    mask_iou: 0.8, heatmap_rtol: 0.3, auc: 0.3, quality: 0.05}
  int8: {logits_atol: 0.5, logits_rtol: 0.1, logits_outliers: 0.05, predictions: 0.5, score_rtol: 0.5,
    mask_iou: 0.5, heatmap_rtol: 1.0, auc: 0.5, quality: 0.1}
"""
# Tolerances of no meaning but that the commands run: of random weights, the deepest tap has 3 x 4 cells
# that hardly answer, and int8's error in its own heatmap (0.1 to 0.8 of the maximum) is as large.


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options of the network, with a preset that knows lower precisions."""
    preset = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    preset.write_text(PRESET + LOWER)
    return ("--model", "icnet", "--random-weights", "--preset", preset)


@pytest.fixture(scope="module")
def outcomes(
    options: tuple[object, ...], calibration: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Outcome]]:
    """A bundle of each precision with every engine that builds here, and what the build said."""
    root = tmp_path_factory.mktemp("lowered")
    found = {}
    for precision in ("bf16", "int8"):
        outcome = zmask(
            "build", *options, "--calibration", calibration, "--precision", precision,
            "--out", root / precision, "--json",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        found[precision] = root / precision, outcome
    return found


@pytest.fixture(scope="module")
def lowered(outcomes: dict[str, tuple[Path, Outcome]]) -> dict[str, Path]:
    """The bundles alone."""
    return {precision: path for precision, (path, _) in outcomes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_bundle_says_and_has_its_precision(
    precision: str, lowered: dict[str, Path], bundle: Path
) -> None:
    path = lowered[precision]
    manifest = load(path).manifest
    model = onnx.load(path / "protected.onnx")
    assert manifest.precision == precision
    assert manifest.opset == model.opset_import[0].version
    assert manifest.tolerances.quality is not None
    kind = {"bf16": onnx.TensorProto.BFLOAT16, "int8": onnx.TensorProto.INT8}[precision]
    short = [w for w in model.graph.initializer if w.data_type == kind]
    kept = sum(name.endswith(KEPT) for name in _products(model.graph))
    assert sum(len(w.dims) == 4 for w in short) == len(_products(model.graph)) // 2 - kept // 2
    assert 0 < kept // 2 < 16
    small = {"bf16": 0.6, "int8": 0.4}[precision]
    full = (bundle / "protected.onnx").stat().st_size
    assert (path / "protected.onnx").stat().st_size < small * full
    for tensor in (*manifest.inputs, *manifest.outputs):
        assert tensor.dtype in ("float32", "bool")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_lower_bundle_runs_and_verifies(
    precision: str, lowered: dict[str, Path], bundle: Path, options: tuple[object, ...],
    inputs: Inputs, tmp_path: Path,
) -> None:  # fmt: skip
    images = to_float([draw_scene(SIZE, seed) for seed in (0, 1)])
    low, full = (load(path).run(images) for path in (lowered[precision], bundle))
    for a, b in zip(low, full, strict=True):
        assert a.score == pytest.approx(b.score, rel=0.5)
        assert a.score != b.score
    ran = zmask("run", lowered[precision], inputs.image, "--out", tmp_path / "results")
    assert ran.code == 0, ran.err
    outcome = zmask("verify", lowered[precision], *options, "--count", "1", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.record["tolerances"]["predictions"] > 0
    assert max(c["score_error"] for c in outcome.record["comparisons"]) > 1e-5


@pytest.mark.slow
@pytest.mark.skipif(tensorrt.available("tensorrt-rtx") is not None, reason="no tensorrt-rtx here")
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_an_engine_has_the_precision(
    precision: str, outcomes: dict[str, tuple[Path, Outcome]]
) -> None:
    _, outcome = outcomes[precision]
    engine = next(e for e in outcome.record["engines"] if e["flavour"] == "tensorrt-rtx")
    path = outcomes[precision][0] / "protected.onnx"
    names = _products(onnx.load(path, load_external_data=False).graph)
    kept = sum(name.endswith(KEPT) for name in names)
    assert engine["convolutions"] == {precision: len(names) - kept, "fp32": kept}
    assert engine["compiled"].keys() == {precision, "fp32"}
    assert engine["compiled"]["fp32"] == kept
    assert not engine["tf32"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_drawn_scenes_in_the_place_of_images_are_told(
    precision: str, outcomes: dict[str, tuple[Path, Outcome]]
) -> None:
    said = " ".join(outcomes[precision][1].err.split())
    assert ("ranges of 32 drawn scenes" in said) == (precision == "int8")


@pytest.mark.slow
def test_a_bundle_is_compared_with_its_float32_twin(
    lowered: dict[str, Path], options: tuple[object, ...], inputs: Inputs
) -> None:
    data = ("--data", inputs.camvid, "--patch", inputs.patch)
    outcome = zmask("verify", lowered["bf16"], *options, *data, "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.record
    assert (report["precision"], report["images"], report["metric"]) == ("bf16", 2, "mIoU")
    assert 0 < report["score_error"][1] <= report["score_error"][0] < 0.2
    assert abs(report["clean"][0] - report["clean"][1]) < 0.05
    assert 0.5 > report["pixels"][0] >= report["pixels"][1] >= 0


@pytest.mark.slow
def test_a_contract_that_is_broken_is_an_error(
    lowered: dict[str, Path], options: tuple[object, ...], inputs: Inputs, tmp_path: Path
) -> None:
    copy = link_tree(lowered["int8"], tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["tolerances"] |= {"quality": 0.0, "auc": 0.0, "score_rtol": 0.0, "mask_iou": 1.0}
    del manifest["checksum"]
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    data = ("--data", inputs.camvid, "--patch", inputs.patch, "--limit", "1")
    outcome = zmask("verify", copy, *options, *data)
    assert outcome.code == 3
    assert "int8 against float32, 1 images" in outcome.out
    assert "flags that differ" in outcome.out
    assert "Error: int8 differs too much from float32: " in outcome.err


def test_a_float32_bundle_has_no_twin(bundle: Path, inputs: Inputs) -> None:
    outcome = zmask(
        "verify", bundle, *inputs.random, "--data", inputs.camvid, "--patch", inputs.patch
    )
    assert_refused(outcome, 2, "is float32 itself")


@pytest.mark.slow
def test_a_comparison_needs_a_patch(
    lowered: dict[str, Path], options: tuple[object, ...], inputs: Inputs
) -> None:
    outcome = zmask("verify", lowered["bf16"], *options, "--data", inputs.camvid)
    assert_refused(outcome, 2, "no patch to attack with")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (("--split", "val"), "--split means nothing without --data"),
        (("--limit", "1"), "--limit means nothing without --data"),
        (("--data", "x", "--count", "2"), "--count means nothing with --data"),
        (("--data", "x", "--images", "y"), "--images means nothing with --data"),
    ],
)
def test_options_of_the_other_form_are_refused(
    given: tuple[str, ...], word: str, bundle: Path, inputs: Inputs
) -> None:
    assert_refused(zmask("verify", bundle, *inputs.random, *given), 2, word)


BAD = {
    "an unknown precision": (("--precision", "fp8"), "'fp8' is not one of"),
    "tf32 without an engine": (("--precision", "tf32", "--target", "onnx"), "none is compiled"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_precision_that_makes_no_sense(case: str, options: tuple[object, ...], out: Path) -> None:
    given, word = BAD[case]
    assert_refused(zmask("build", *options, *given, "--out", out), 2, word)
    assert contents(out.parent) == []


def test_a_preset_without_tolerances_for_it(inputs: Inputs, out: Path) -> None:
    outcome = zmask("build", *inputs.random, "--precision", "fp16", "--out", out)
    assert_refused(outcome, 2, "states no tolerances for fp16", "Add a block fp16")
    assert contents(out.parent) == []


def test_int8_of_own_weights_needs_images(
    inputs: Inputs, own_bundle: Path, options: tuple[object, ...], out: Path
) -> None:
    own = ("--model", "icnet", "--weights", inputs.weights, *options[3:])
    given = ("--calibration", own_bundle / "calibration.safetensors", "--precision", "int8")
    refused = zmask("build", *own, *given, "--target", "onnx", "--out", out)
    assert_refused(refused, 2, "int8 needs images", "--images")
    assert contents(out.parent) == []


def test_ranges_come_from_the_users_images_clean_and_patched(inputs: Inputs) -> None:
    opened = open_network(
        NetworkOptions("icnet", preset=str(inputs.preset), weights=inputs.weights)
    )
    patch = patches.load(inputs.patch)
    given = list(range_images(opened, inputs.images, patch, 2, "error"))
    files = sorted(inputs.images.iterdir())
    assert len(given) == 2 * len(files)
    for index, path in enumerate(files):
        clean = to_float([np.asarray(Image.open(path))] * 2)
        np.testing.assert_array_equal(given[2 * index], clean)
        changed = (given[2 * index + 1] != clean).any(axis=1)
        # A pixel of noise may have the very colour that was there.
        assert 0.9 < changed.mean() * np.prod(SIZE) / np.prod(PATCH_SIZE) <= 1
    assert len(list(range_images(opened, None, patch, None, "error"))) == 2 * RANGE_SCENES


@pytest.mark.parametrize("model", ["icnet", "ddrnet", "bisenet", "camvid-retinanet"])
def test_the_shipped_ranges_never_see_the_patch_that_is_evaluated_with(model: str) -> None:
    opened = open_network(NetworkOptions(model))
    shipped = opened.shipped
    assert shipped.patch is not None
    assert shipped.fit_patch is not None
    under = range_patch(opened, ())
    assert under is not None
    assert torch.equal(under, patches.load(shipped.fit_patch))
    assert not torch.equal(under, patches.load(shipped.patch))
    blind = replace(opened, shipped=replace(shipped, fit_patch=None))
    assert range_patch(blind, ()) is None
    clean, next_clean = itertools.islice(range_images(blind, None, None, None, "error"), 2)
    np.testing.assert_array_equal(clean, to_float([draw_scene(blind.input_size, 0)]))
    np.testing.assert_array_equal(next_clean, to_float([draw_scene(blind.input_size, 1)]))
    assert torch.equal(range_patch(blind, (shipped.patch,)), patches.load(shipped.patch))  # type: ignore[arg-type]

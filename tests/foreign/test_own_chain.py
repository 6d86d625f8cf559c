"""A network of the user's own through the whole chain, as a module and as an ONNX file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from tests.conftest import Inputs, Outcome, assert_refused, zmask
from tests.drawn import SIZE
from tests.foreign import graphs
from tests.foreign.graphs import TAPS
from zmask_export.artifacts import calibration as calibrations
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.data import images
from zmask_export.runtime.protected import load


class TwinOfTheFile(nn.Module):
    """What ``graphs.network`` computes, in PyTorch, with the file's weights."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.mid = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.ReLU())
        self.scores = nn.Conv2d(16, graphs.CLASSES, 1, bias=False)
        stored = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy())
                  for t in model.graph.initializer}  # fmt: skip
        self.load_state_dict(
            {"stem.0.weight": stored["w0"], "stem.0.bias": stored["b0"],
             "mid.0.weight": stored["w1"], "scores.weight": stored["w2"]}
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.mid(self.stem(x)))


def make() -> nn.Module:
    """A factory that ``--module`` can name."""
    return TwinOfTheFile(graphs.network())


@dataclass(frozen=True)
class Chain:
    """A network that was calibrated, fitted, built and verified."""

    options: tuple[object, ...]
    calibration: Path
    bundle: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def by_file(net: Path, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Verb by verb."""
    folder = tmp_path_factory.mktemp("by_file")
    options = ("--onnx", net, *TAPS, "--preprocess", "imagenet")
    statistics, bundle = folder / "own.safetensors", folder / "bundle"
    shown, patch = ("--images", inputs.images), ("--patch", inputs.patch)
    for step in (
        ("calibrate", *shown, "--out", statistics),
        ("fit", *shown, *patch, "--calibration", statistics),
        ("build", *patch, "--calibration", statistics, "--target", "onnx", "--out", bundle),
        ("verify", bundle, *patch, *shown, "--json"),
    ):
        outcome = zmask(*step, *options)
        assert outcome.code == 0, outcome.err
    return Chain(options, statistics, bundle, outcome)


@pytest.fixture(scope="module")
def by_module(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """In one go."""
    bundle = tmp_path_factory.mktemp("by_module") / "bundle"
    options = ("--module", f"{__name__}:make", *TAPS)
    shown, patch = ("--images", inputs.images), ("--patch", inputs.patch)
    for step in (
        ("build", *patch, *shown, "--target", "onnx", "--out", bundle),
        ("verify", bundle, *patch, *shown, "--json"),
    ):
        outcome = zmask(*step, *options)
        assert outcome.code == 0, outcome.err
    return Chain(options, bundle / "calibration.safetensors", bundle, outcome)


def test_both_ways_give_the_same_calibration(by_file: Chain, by_module: Chain) -> None:
    file, module = (calibrations.load(c.calibration) for c in (by_file, by_module))
    assert (file.header.model, module.header.model) == ("net.onnx", f"{__name__}:make")
    assert file.header.defense == module.header.defense
    assert file.header.dataset_sha256 == module.header.dataset_sha256
    for tap in ("stem", "mid"):
        np.testing.assert_allclose(file.mean[tap], module.mean[tap], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(file.std[tap], module.std[tap], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(file.require_fitted()[0], module.require_fitted()[0], rtol=1e-3)
    assert file.header.threshold == pytest.approx(module.header.threshold, rel=1e-3)


def test_both_ways_give_the_same_engine(by_file: Chain, by_module: Chain, inputs: Inputs) -> None:
    image = images.read(inputs.image)
    results = [load(c.bundle)(image, threshold=0.0) for c in (by_file, by_module)]
    for name in ("logits", "heatmap_shallow", "heatmap.deep.mid"):
        file, module = (r.outputs[name] for r in results)
        np.testing.assert_allclose(file, module, rtol=1e-3, atol=1e-3 * np.abs(module).max())
    assert results[0].prediction.shape == SIZE  # the logits have a quarter of it
    assert len(np.unique(results[0].prediction)) > 1


@pytest.mark.parametrize("way", ["by_file", "by_module"])
def test_parity_is_shown_with_and_without_a_flag(way: str, request: pytest.FixtureRequest) -> None:
    comparisons = request.getfixturevalue(way).outcome.record["comparisons"]
    assert {c["flag"] for c in comparisons} == {True, False}
    assert {c["batch"] for c in comparisons} == {1, 4}
    assert [c for c in comparisons if c["problems"]] == []


def test_the_second_pass_is_the_file_itself_on_the_covered_image(
    by_file: Chain, net: Path, inputs: Inputs
) -> None:
    batch = images.to_float([images.read(inputs.image)])
    (result,) = load(by_file.bundle)(batch, threshold=0.0)
    assert 0 < result.mask.mean() < 1
    mean = np.array((0.485, 0.456, 0.406), np.float32)[:, None, None]
    std = np.array((0.229, 0.224, 0.225), np.float32)[:, None, None]
    covered = np.where(result.mask, batch, mean)
    (expected,) = OnnxRuntimeRunner(net.read_bytes()).run({"x": (covered - mean) / std}).values()
    np.testing.assert_allclose(result.outputs["logits"], expected[0], rtol=1e-4, atol=1e-4)


def test_run_writes_pictures_of_the_image_size(by_file: Chain, inputs: Inputs, out: Path) -> None:
    outcome = zmask("run", by_file.bundle, inputs.image, "--out", out)
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert set(record["files"]) == {"mask", "overlay", "prediction"}
    assert {images.read(Path(file)).shape for file in record["files"].values()
            if not file.endswith("mask.png")} == {(*SIZE, 3)}  # fmt: skip


def test_other_weights_are_refused(by_file: Chain, tmp_path: Path) -> None:
    other = graphs.save(graphs.network(seed=1), tmp_path / "net.onnx")
    outcome = zmask("verify", by_file.bundle, "--onnx", other, *by_file.options[2:])
    assert_refused(outcome, 4, "is for another weights")


def test_a_graph_of_other_weights_breaks_the_contract(
    by_file: Chain, net: Path, inputs: Inputs, out: Path
) -> None:
    """The reference is no copy of what is built: where they differ, verify says so."""
    model = onnx.load(by_file.bundle / "protected.onnx")
    weight = max(model.graph.initializer, key=lambda t: t.name == "network/w2")
    changed = onnx.numpy_helper.to_array(weight) * 1.01
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    manifest = json.loads((by_file.bundle / "manifest.json").read_text())
    out.mkdir()
    for name in manifest["files"].keys() - {"protected.onnx"}:
        (out / name).write_bytes((by_file.bundle / name).read_bytes())
    data = model.SerializeToString()
    (out / "protected.onnx").write_bytes(data)
    manifest["files"]["protected.onnx"] = {
        "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data),
    }  # fmt: skip
    del manifest["checksum"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    outcome = zmask("verify", out, *by_file.options, "--json")
    assert outcome.code == 3
    assert "outputs off" in outcome.record["what"]


def build(inputs: Inputs, out: Path, *options: object) -> Outcome:
    return zmask(
        "build", *options, *TAPS, "--images", inputs.images, "--patch", inputs.patch,
        "--target", "onnx", "--out", out, "--json",
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_kept(batch: int, inputs: Inputs, out: Path) -> None:
    path = graphs.save(graphs.network(dims=(batch, 3, *SIZE)), out.parent / "fixed.onnx")
    outcome = build(inputs, out, "--onnx", path, "--preprocess", "unit")
    assert outcome.code == 0, outcome.err
    engine = load(out)
    assert engine.manifest.batch == batch
    results = engine(images.to_float([images.read(inputs.image)] * 2))
    assert [r.score for r in results] == pytest.approx([results[0].score] * 2)


def test_a_batch_that_a_reshape_fixes_counts_as_fixed(inputs: Inputs, out: Path) -> None:
    shape = onnx.numpy_helper.from_array(np.array([1, 5, 24, 32], np.int64), "shape")
    extra = [helper.make_node("Reshape", ["scores", "shape"], ["y"])]
    model = graphs.network(extra=extra, more=[shape], outputs=["y"])
    path = graphs.save(model, out.parent / "net.onnx")
    outcome = build(inputs, out, "--onnx", path, "--preprocess", "unit")
    assert outcome.code == 0, outcome.err
    assert load(out).manifest.batch == 1


def test_outputs_of_any_kind_are_kept_as_they_are(inputs: Inputs, out: Path) -> None:
    extra = [
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("GlobalAveragePool", ["mid"], ["pooled"]),
    ]
    model = graphs.network(extra=extra, outputs=["best", "pooled", "stem"])
    path = graphs.save(model, out.parent / "net.onnx")
    outcome = build(
        inputs,
        out,
        "--onnx",
        path,
        "--preprocess",
        "bytes",
        "--outputs",
        "label=best,pooled,early=stem",
    )
    assert outcome.code == 0, outcome.err
    engine = load(out)
    described = {t.name: (t.dtype, t.shape) for t in engine.manifest.outputs[:3]}
    assert described == {
        "label": ("int64", ("N", 24, 32)),
        "pooled": ("float32", ("N", 16, 1, 1)),
        "early": ("float32", ("N", 8, 48, 64)),
    }
    assert engine.manifest.classes == ()
    batch = images.to_float([images.read(inputs.image)])
    (result,) = engine(batch, threshold=1e30)
    assert (result.prediction, result.detections) == (None, None)
    expected = OnnxRuntimeRunner(path.read_bytes()).run({"x": batch * 255})
    np.testing.assert_array_equal(result.outputs["label"], expected["best"][0])
    np.testing.assert_allclose(result.outputs["early"], expected["stem"][0], rtol=1e-4, atol=1e-3)
    assert zmask("run", out, inputs.image).code == 0
    outcome = zmask("evaluate", out, "--data", inputs.camvid, "--patch", inputs.patch)
    assert outcome.code == 2
    assert "--outputs logits=OUTPUT" in outcome.err

"""build, on ICNet with random weights and a small input."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.conftest import Inputs, contents, link_tree, zmask
from tests.drawn import PATCH_SIZE, SIZE
from zmask_export.backends import tensorrt
from zmask_export.data.images import to_float
from zmask_export.data.scene import draw_scene
from zmask_export.runtime.protected import load

ONNX_ONLY = [
    "calibration.safetensors", "manifest.json", "parity.json", "protected.onnx", "sbom.cdx.json"
]  # fmt: skip
HEATMAPS = {"score", "flag", "mask", "soft_mask", "heatmap_shallow", "heatmap_deep", "logits"}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_bundle_holds_graph_engines_calibration_parity_and_manifest(bundle: Path) -> None:
    flavours = ("tensorrt", "tensorrt-rtx")
    engines = [f"protected.{f}.engine" for f in flavours if tensorrt.available(f) is None]
    assert contents(bundle) == sorted(ONNX_ONLY + engines)
    assert list(bundle.parent.glob(".*")) == []


def test_a_bundle_has_an_engine_wherever_tensorrt_rtx_is_installed(bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert (bundle / "protected.tensorrt-rtx.engine").stat().st_size > 1 << 20


def test_the_manifest_has_the_hash_of_every_file(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["files"].keys() == set(contents(bundle)) - {"manifest.json"}
    for name, info in manifest["files"].items():
        assert info == {"sha256": _sha256(bundle / name), "bytes": (bundle / name).stat().st_size}
    assert manifest["calibration_sha256"] == _sha256(bundle / "calibration.safetensors")


def test_the_manifest_says_what_the_engine_is(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["model"], manifest["policy"], manifest["batch"]) == ("icnet", "gated", None)
    assert tuple(manifest["input_size"]) == SIZE
    assert len(manifest["classes"]) == 11
    assert {i["name"]: i["shape"] for i in manifest["inputs"]} == {
        "image": ["N", 3, *SIZE],
        "threshold": [1],
    }
    graph = onnx.load(bundle / "protected.onnx").graph
    assert [o["name"] for o in manifest["outputs"]] == [o.name for o in graph.output]
    assert {o["name"] for o in manifest["outputs"]} >= HEATMAPS


def test_the_parity_report_shows_every_comparison(bundle: Path) -> None:
    parity = json.loads((bundle / "parity.json").read_text())
    assert parity["runner"].startswith("onnxruntime")
    assert {c["batch"] for c in parity["comparisons"]} == {1, 4}
    assert {c["image"].rsplit(", ")[1] for c in parity["comparisons"]} == {"clean", "patched"}
    assert all(c["problems"] == [] for c in parity["comparisons"])
    assert all(c["mask_iou"] >= 0.999 for c in parity["comparisons"])


def test_json_names_the_bundle_and_its_engines(bundle: Path, build_record: Any) -> None:
    assert build_record["bundle"] == str(bundle)
    for engine in build_record["engines"]:
        assert (bundle / engine["file"]).is_file()
    assert build_record["worst_mask_iou"] >= 0.999


def test_mask_policy_replaces_a_bundle_where_forced(
    inputs: Inputs, calibration: Path, detect_bundle: Path, tmp_path: Path
) -> None:
    out = link_tree(detect_bundle, tmp_path / "bundle")
    outcome = zmask(
        "build", *inputs.random, "--calibration", calibration, "--policy", "mask",
        "--target", "onnx", "--force", "--out", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert f"Next: zmask-export run {out}" in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert contents(out) == ONNX_ONLY
    assert load(out).manifest.policy == "mask"
    assert load(detect_bundle).manifest.policy == "detect"
    verified = zmask("verify", out, *inputs.random, "--count", "1", "--json")
    assert verified.code == 0, verified.err
    assert verified.record["policy"] == "mask"


@pytest.mark.parametrize("policy", ["gated", "detect"])
def test_every_policy_verifies(
    policy: str, inputs: Inputs, bundle: Path, detect_bundle: Path
) -> None:
    path = {"gated": bundle, "detect": detect_bundle}[policy]
    outcome = zmask("verify", path, *inputs.random, "--images", inputs.images, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.record["policy"] == policy
    # Two batch sizes, and once more where the threshold decides for all images alike.
    assert len(outcome.record["comparisons"]) in (8, 16)
    assert {c["flag"] for c in outcome.record["comparisons"]} == {True, False}


def test_verify_prints_tolerances_and_every_image(inputs: Inputs, detect_bundle: Path) -> None:
    outcome = zmask(
        "verify", detect_bundle, *inputs.random, "--count", "1", "--patch", inputs.patch
    )
    assert outcome.code == 0, outcome.err
    assert "scene-0, clean" in outcome.out
    assert "scene-0, patched" in outcome.out
    assert '"score_rtol":0.0001' in outcome.out


def test_detect_and_gated_agree_on_the_decision(bundle: Path, detect_bundle: Path) -> None:
    rng = np.random.default_rng(0)
    image = draw_scene(SIZE, 0)
    top, left = 30, 40
    noise = rng.integers(0, 256, (*PATCH_SIZE, 3), dtype=np.uint8)
    patched = image.copy()
    patched[top : top + PATCH_SIZE[0], left : left + PATCH_SIZE[1]] = noise
    batch = to_float([image, patched])
    detected, gated = (load(path).run(batch) for path in (detect_bundle, bundle))
    for a, b in zip(detected, gated, strict=True):
        assert a.flag == b.flag
        assert a.score == pytest.approx(b.score, rel=1e-4)
        np.testing.assert_array_equal(a.mask, b.mask)


def test_a_fixed_batch_with_raw_taps(inputs: Inputs, calibration: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    outcome = zmask(
        "build", *inputs.random, "--calibration", calibration, "--batch", "2", "--raw-taps",
        "--target", "onnx", "--out", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    engine = load(out)
    assert engine.manifest.batch == 2
    assert engine.manifest.inputs[0].shape == (2, 3, *SIZE)
    scenes = to_float([draw_scene(SIZE, seed) for seed in (0, 1, 2)])
    results = engine.run(scenes)
    # The last group of two is filled up, and an image does not see what it is filled with.
    assert len(results) == 3
    for index in range(3):
        (alone,) = engine.run(scenes[index : index + 1])
        np.testing.assert_allclose(
            alone.outputs["logits"], results[index].outputs["logits"], rtol=1e-4, atol=1e-4
        )
        assert alone.score == pytest.approx(results[index].score, rel=1e-5)
    for tap in ("res_block5", "convbnrelu1_2", "res_block2", "conv5_4_k1"):
        assert results[0].outputs[f"tap.{tap}"].ndim == 3
    assert zmask("verify", out, *inputs.random, "--count", "1").code == 0
    ran = zmask("run", out, inputs.image, "--out", tmp_path / "results")
    assert ran.code == 0, ran.err


def test_no_raw_taps_unless_asked_for(bundle: Path) -> None:
    names = [o.name for o in load(bundle).manifest.outputs]
    assert [name for name in names if name.startswith("tap.")] == []


def test_images_and_a_finished_calibration_exclude_each_other(
    inputs: Inputs, calibration: Path, tmp_path: Path
) -> None:
    outcome = zmask(
        "build", *inputs.random, "--calibration", calibration, "--images", inputs.images,
        "--out", tmp_path / "bundle",
    )  # fmt: skip
    assert outcome.code == 2
    assert "are not used" in outcome.err
    assert contents(tmp_path) == []

"""Bundles that were changed: exit code 4, before the graph is parsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Inputs, assert_refused, contents, link_tree, zmask
from zmask_export.runtime import choice

Spoil = Callable[[Path], None]


def _rewrite(path: Path, data: bytes) -> None:
    """Replace a linked file without touching the original's bytes."""
    path.unlink()
    path.write_bytes(data)


def _manifest(change: Callable[[dict[str, Any]], None]) -> Spoil:
    def spoil(bundle: Path) -> None:
        path = bundle / "manifest.json"
        record = json.loads(path.read_text())
        change(record)
        record["checksum"] = None
        _rewrite(path, json.dumps(record).encode())

    return spoil


def _flip(name: str) -> Spoil:
    def spoil(bundle: Path) -> None:
        data = bytearray((bundle / name).read_bytes())
        data[len(data) // 2] ^= 1
        _rewrite(bundle / name, bytes(data))

    return spoil


def _symlink(bundle: Path) -> None:
    target = bundle.parent / "elsewhere.onnx"
    (bundle / "protected.onnx").rename(target)
    (bundle / "protected.onnx").symlink_to(target)


def _cut_manifest(bundle: Path) -> None:
    data = (bundle / "manifest.json").read_bytes()
    _rewrite(bundle / "manifest.json", data[: len(data) // 2])


def _no_graph(bundle: Path) -> None:
    (bundle / "protected.onnx").unlink()
    _manifest(lambda m: m["files"].pop("protected.onnx"))(bundle)


def _climb(manifest: dict[str, Any]) -> None:
    manifest["files"]["../protected.onnx"] = manifest["files"].pop("protected.onnx")


SPOILT: dict[str, tuple[Spoil, str]] = {
    "a changed graph": (_flip("protected.onnx"), "has a changed file protected.onnx"),
    "a changed calibration": (_flip("calibration.safetensors"), "has a changed file calibration"),
    "a cut graph": (
        lambda b: _rewrite(b / "protected.onnx", b"\0" * 9),
        "has a changed file protected.onnx",
    ),
    "a missing graph": (lambda b: (b / "protected.onnx").unlink(), "lacks the file protected.onnx"),
    "an extra file": (lambda b: (b / "note.txt").touch(), "has an extra file note.txt"),
    "a hidden extra file": (lambda b: (b / ".note").touch(), "has an extra file .note"),
    "a link": (_symlink, "something else than a file called protected.onnx"),
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "no readable manifest.json"),
    "a cut manifest": (_cut_manifest, "damaged manifest"),
    "an empty manifest": (lambda b: _rewrite(b / "manifest.json", b""), "damaged manifest"),
    "a binary manifest": (lambda b: _rewrite(b / "manifest.json", b"\xff\xfe"), "no readable"),
    "a manifest of a later version": (
        _manifest(lambda m: m.update(schema_version=99)),
        "schema version 99",
    ),
    "a manifest with another field": (_manifest(lambda m: m.update(colour=1)), "colour"),
    "a manifest that climbs out": (_manifest(_climb), "no plain file name"),
    "a manifest without a graph": (_no_graph, "has no protected.onnx"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_run_refuses(
    case: str,
    inputs: Inputs,
    detect_bundle: Path,
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil, word = SPOILT[case]
    copy = link_tree(detect_bundle, tmp_path / "copy")
    spoil(copy)
    parsed: list[bytes] = []
    monkeypatch.setattr(choice, "OnnxRuntimeRunner", lambda model, **_: parsed.append(model))
    assert_refused(zmask("run", copy, inputs.image, "--out", out), 4, word)
    assert parsed == []
    assert contents(out.parent) == []


def test_verify_and_evaluate_refuse_too(
    inputs: Inputs, detect_bundle: Path, tmp_path: Path, out: Path
) -> None:
    copy = link_tree(detect_bundle, tmp_path / "copy")
    _flip("protected.onnx")(copy)
    assert_refused(zmask("verify", copy, *inputs.random), 4, "has a changed file protected.onnx")
    data = ("--data", inputs.camvid, "--patch", inputs.patch)
    assert_refused(zmask("evaluate", copy, *data), 4, "has a changed file protected.onnx")
    assert contents(out.parent) == []


@pytest.mark.parametrize("name", ["nosuch", "file", "empty"])
def test_what_is_no_bundle(name: str, inputs: Inputs, tmp_path: Path, out: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert_refused(zmask("run", tmp_path / name, inputs.image, "--out", out), 4, "is no bundle")
    assert contents(out.parent) == []


def test_verify_with_other_weights(inputs: Inputs, detect_bundle: Path, out: Path) -> None:
    assert_refused(zmask("verify", detect_bundle, *inputs.own), 4, "another weights")


def test_verify_with_a_calibration_that_its_manifest_does_not_know(
    inputs: Inputs, detect_bundle: Path, tmp_path: Path, out: Path
) -> None:
    copy = link_tree(detect_bundle, tmp_path / "copy")
    _manifest(lambda m: m.update(calibration_sha256="0" * 64))(copy)
    assert_refused(zmask("verify", copy, *inputs.random), 4, "not the one of its manifest")


def _demand_the_impossible(manifest: dict[str, Any]) -> None:
    manifest["tolerances"] |= {"score_rtol": 0.0, "heatmap_rtol": 0.0, "logits_atol": 0.0}
    manifest["tolerances"] |= {"logits_rtol": 0.0, "logits_outliers": 0.0}


def test_a_parity_that_is_broken_is_an_error(
    inputs: Inputs, detect_bundle: Path, tmp_path: Path
) -> None:
    copy = link_tree(detect_bundle, tmp_path / "copy")
    _manifest(_demand_the_impossible)(copy)
    outcome = zmask("verify", copy, *inputs.random, "--count", "1")
    assert outcome.code == 3
    assert "Error: The engine differs from the reference: " in outcome.err
    assert "  Fix: Report this" in outcome.err
    assert "tolerances" in outcome.out
    outcome = zmask("verify", copy, *inputs.random, "--count", "1", "--json")
    assert outcome.code == 3
    assert outcome.record["error"] == "ParityError"

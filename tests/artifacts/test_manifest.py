from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmask_export.artifacts.bundle import is_bundle, read_manifest
from zmask_export.artifacts.manifest import (
    FILE_NAME,
    SCHEMA_VERSION,
    EngineInfo,
    FileInfo,
    Manifest,
    TensorInfo,
    describe,
    describe_files,
)
from zmask_export.artifacts.signature import SIGNATURE_FILE
from zmask_export.errors import BundleError
from zmask_export.spec import PREPROCESS, Policy, Tolerances


def _manifest(folder: Path) -> Manifest:
    tensor = TensorInfo(
        name="image", dtype="float32", shape=("N", 3, 64, 96), range="[0, 1]", meaning="RGB"
    )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        tool_version="0",
        name="demo",
        model="icnet",
        policy=Policy.GATED,
        precision="fp32",
        opset=20,
        classes=("road", "sky"),
        input_size=(64, 96),
        batch=None,
        preprocess=PREPROCESS["caffe"],
        fill="mean",
        threshold=1.5,
        inputs=(tensor,),
        outputs=(),
        engines=(
            EngineInfo(
                file="a.engine",
                flavour="tensorrt-rtx",
                version="1",
                capabilities=("8.6",),
                activation_bytes=None,
                weight_bytes=12,
                tf32=False,
                batch=(1, 1, 4),
            ),
        ),
        tolerances=Tolerances(
            logits_atol=0,
            logits_rtol=0.1,
            logits_outliers=0,
            score_rtol=0.1,
            mask_iou=1,
            heatmap_rtol=0.1,
        ),
        weights_sha256="0" * 64,
        calibration_sha256="1" * 64,
        versions={"onnx": "1"},
        files=describe_files(folder),
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "protected.onnx").write_bytes(b"graph" * 100)
    (folder / "a.engine").write_bytes(b"engine")
    (folder / FILE_NAME).write_text(_manifest(folder).model_dump_json())
    return folder


def _refused(folder: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        read_manifest(folder)
    assert caught.value.fix


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / FILE_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_manifest_comes_back(bundle: Path) -> None:
    assert read_manifest(bundle) == _manifest(bundle)
    assert set(read_manifest(bundle).files) == {"a.engine", "protected.onnx"}


def test_what_is_a_bundle_and_what_is_none(bundle: Path, tmp_path: Path) -> None:
    assert is_bundle(bundle)
    (bundle / SIGNATURE_FILE).touch()
    assert is_bundle(bundle)
    (bundle / "a.engine").write_bytes(b"damaged")
    assert is_bundle(bundle)
    (bundle / "a.engine").unlink()
    assert is_bundle(bundle)
    (bundle / "thesis.txt").write_text("mine")
    assert not is_bundle(bundle)
    (tmp_path / "empty").mkdir()
    assert is_bundle(tmp_path / "empty")
    (tmp_path / "empty" / FILE_NAME).write_text('{"name": "a web app"}')
    assert not is_bundle(tmp_path / "empty")
    assert not is_bundle(tmp_path / "empty" / FILE_NAME)
    assert not is_bundle(tmp_path / "none")


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "a.engine").unlink()
    _refused(bundle, r"lacks the file a\.engine")


def test_an_extra_file_is_named(bundle: Path) -> None:
    (bundle / "surprise.so").write_bytes(b"")
    _refused(bundle, r"extra file surprise\.so")


def test_an_extra_folder_is_named(bundle: Path) -> None:
    (bundle / "plugins").mkdir()
    _refused(bundle, "extra file plugins")


@settings(max_examples=30, deadline=None)
@given(position=st.integers(0, 499), change=st.integers(1, 255))
def test_any_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, change: int
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    path = folder / "protected.onnx"
    path.write_bytes(b"graph" * 100)
    (folder / FILE_NAME).write_text(_manifest(folder).model_dump_json())
    data = bytearray(path.read_bytes())
    data[position] ^= change
    path.write_bytes(bytes(data))
    _refused(folder, r"changed file protected\.onnx")


@pytest.mark.parametrize("data", [b"graph" * 99, b"graph" * 101, b""])
def test_another_size_is_noticed(bundle: Path, data: bytes) -> None:
    (bundle / "protected.onnx").write_bytes(data)
    _refused(bundle, r"changed file protected\.onnx")


def test_a_link_to_equal_bytes_is_refused(bundle: Path, tmp_path: Path) -> None:
    moved = (bundle / "a.engine").rename(tmp_path / "a.engine")
    (bundle / "a.engine").symlink_to(moved)
    _refused(bundle, "something else than a file")


def test_a_folder_under_a_files_name_is_refused(bundle: Path) -> None:
    (bundle / "a.engine").unlink()
    (bundle / "a.engine").mkdir()
    _refused(bundle, "something else than a file")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/b", ".hidden", "", "a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "outside").write_bytes(b"engine")
    files = json.loads((bundle / FILE_NAME).read_text())["files"]
    _edit(bundle, files=files | {name: files["a.engine"]})
    _refused(bundle, "no plain file name")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "schema version 2, not 1"),
        ({"policy": "sometimes"}, "policy"),
        ({"surplus": 1}, "surplus"),
        ({"calibration_sha256": "short"}, "calibration_sha256"),
        ({"files": []}, "files"),
        ({"threshold": -1.0}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),  # would never flag
        ({"threshold": float("nan")}, "threshold"),
    ],
)
def test_a_damaged_field_is_named(bundle: Path, changes: dict[str, Any], message: str) -> None:
    _edit(bundle, **changes)
    _refused(bundle, message)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_manifest_cut_short_is_refused(bundle: Path, share: float) -> None:
    text = (bundle / FILE_NAME).read_text()
    (bundle / FILE_NAME).write_text(text[: int(len(text) * share)])
    _refused(bundle, "damaged manifest")


def test_a_manifest_that_is_too_deep_is_refused(bundle: Path) -> None:
    (bundle / FILE_NAME).write_text("[" * 100_000)
    _refused(bundle, "damaged manifest")


def test_the_largest_manifest_is_read(bundle: Path) -> None:
    data = (bundle / FILE_NAME).read_bytes()
    (bundle / FILE_NAME).write_bytes(data.ljust(4 << 20))
    assert read_manifest(bundle) == _manifest(bundle)


def test_a_manifest_of_enormous_size_is_not_read(bundle: Path) -> None:
    (bundle / FILE_NAME).write_bytes(b" " * ((4 << 20) + 1))
    _refused(bundle, "enormous size")


def test_a_manifest_that_is_no_text_is_refused(bundle: Path) -> None:
    (bundle / FILE_NAME).write_bytes(b"\xff\xfe\x00")
    _refused(bundle, "is no bundle")


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        _refused(path, "is no bundle")


def test_any_changed_byte_of_a_manifest_is_noticed(bundle: Path) -> None:
    path = bundle / FILE_NAME
    data = read_manifest(bundle).sealed().to_bytes()
    path.write_bytes(data)
    assert read_manifest(bundle).to_bytes() == data
    rng = np.random.default_rng(0)
    threshold = data.index(b'"threshold": ') + len(b'"threshold": ')
    for at in (threshold, 0, len(data) - 1, *rng.integers(len(data), size=500)):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(BundleError):
            read_manifest(bundle)


def test_a_manifest_is_written_in_one_way(bundle: Path) -> None:
    """What its signature covers: two spaces for each level, and the end of a line at its end."""
    manifest = _manifest(bundle).sealed()
    data = manifest.to_bytes()
    assert data.decode() == json.dumps(json.loads(data), indent=2) + "\n"
    blank = data.replace(str(manifest.checksum).encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == manifest.checksum
    assert manifest.explains(data)
    assert not manifest.explains(data + b" ")


def test_a_file_is_described_by_size_and_hash(bundle: Path) -> None:
    graph = describe(b"graph" * 100)
    assert graph == FileInfo(sha256=hashlib.sha256(b"graph" * 100).hexdigest(), bytes=500)
    (bundle / SIGNATURE_FILE).touch()
    assert describe_files(bundle) == {"a.engine": describe(b"engine"), "protected.onnx": graph}


def test_a_manifest_from_before_checksums_is_read(bundle: Path) -> None:
    older = read_manifest(bundle).model_dump_json(exclude={"checksum"})
    (bundle / FILE_NAME).write_text(older)
    assert read_manifest(bundle).checksum is None

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from zmask_export.artifacts import calibration
from zmask_export.artifacts.calibration import (
    FORMAT_VERSION,
    Calibration,
    CalibrationHeader,
    FitSummary,
    RocSummary,
)
from zmask_export.errors import CalibrationError
from zmask_export.spec import PREPROCESS, DefenseSpec

FIT = FitSummary(
    images=4,
    epochs=15,
    loss=0.125,
    mask_iou=0.75,
    clean_masked=0.0,
    gate_range=(0.25, 0.75),
    patches=("p.png",),
    roc=RocSummary(
        auc=1.0,
        true_positive_rate=1.0,
        false_positive_rate=0.0,
        positives=2,
        negatives=2,
        rule="largest TPR - FPR",
    ),
    clean_scores=(0.5, 0.75),
    patched_scores=(2.0, 2.5),
)
HEADER = CalibrationHeader(
    format_version=FORMAT_VERSION,
    tool_version="0",
    model="icnet",
    classes=11,
    weights_sha256="ab" * 32,
    preprocess=PREPROCESS["imagenet"],
    input_size=(64, 96),
    defense=DefenseSpec(
        shallow=("early", "late"),
        deep=("late",),
        shallow_kernels=((4, 4), (2, 2)),
        deep_kernels=((4, 4),),
        grid=(8, 12),
    ),
    images=7,
    dataset_sha256="cd" * 32,
)
FILE = Calibration(
    HEADER.model_copy(update={"threshold": 1.25, "fit": FIT}),
    {"early": np.array([1.0, 2.0], np.float32), "late": np.array([3.0], np.float32)},
    {"early": np.array([0.5, 0.0], np.float32), "late": np.array([0.25], np.float32)},
    np.arange(8, dtype=np.float32),
)
DATA = FILE.to_bytes()

floats = st.floats(-1e6, 1e6, width=32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibration") / "file.safetensors"


def _vectors(elements: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "early": hnp.arrays(np.float32, 5, elements=elements),
            "late": hnp.arrays(np.float32, 3, elements=elements),
        }
    )


@settings(max_examples=40, deadline=None)
@given(
    mean=_vectors(floats),
    std=_vectors(st.floats(0, 1e6, width=32)),
    fusion=st.none() | hnp.arrays(np.float32, 8, elements=floats),
    threshold=st.none() | st.floats(0, 1e6),
)
def test_a_file_gives_back_what_was_saved(
    path: Path, mean: dict, std: dict, fusion: Any, threshold: float | None
) -> None:
    saved = Calibration(HEADER.model_copy(update={"threshold": threshold}), mean, std, fusion)
    saved.save(path)
    loaded = calibration.load(path)
    assert loaded.header == saved.header
    assert loaded.to_bytes() == saved.to_bytes() == path.read_bytes()
    for tap in ("early", "late"):
        np.testing.assert_array_equal(loaded.mean[tap], mean[tap])
        np.testing.assert_array_equal(loaded.std[tap], std[tap])
    assert loaded.fitted == (fusion is not None and threshold is not None)


def test_a_summary_comes_back(path: Path) -> None:
    FILE.save(path)
    assert calibration.load(path).header.fit == FIT


def test_equal_content_gives_equal_bytes() -> None:
    turned = Calibration(
        FILE.header,
        dict(reversed(FILE.mean.items())),
        dict(reversed(FILE.std.items())),
        FILE.fusion,
    )
    assert turned.to_bytes() == DATA
    assert FILE.sha256() == hashlib.sha256(DATA).hexdigest()
    assert FILE.with_header(images=8).sha256() != FILE.sha256()


def test_statistics_alone_cannot_protect() -> None:
    for update in ({"fusion": None}, {"header": HEADER}):
        with pytest.raises(CalibrationError, match="statistics only") as caught:
            dataclasses.replace(FILE, **update).require_fitted()
        assert "fit" in caught.value.fix
    parameters, threshold = FILE.require_fitted()
    assert threshold == 1.25
    assert parameters is FILE.fusion


def _refused(path: Path, data: bytes, message: str = "The calibration") -> None:
    path.write_bytes(data)
    with pytest.raises(CalibrationError, match=message) as caught:
        calibration.load(path)
    assert "calibrate" in caught.value.fix


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CalibrationError, match="cannot be read"):
            calibration.load(missing)


@settings(max_examples=80, deadline=None)
@given(length=st.integers(0, len(DATA) - 1))
def test_a_file_cut_short_anywhere_is_refused(path: Path, length: int) -> None:
    _refused(path, DATA[:length])


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(path: Path, data: bytes) -> None:
    _refused(path, data)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(DATA) - 1), value=st.integers(0, 255))
def test_a_changed_byte_gives_a_calibration_or_its_error(
    path: Path, position: int, value: int
) -> None:
    changed = bytearray(DATA)
    changed[position] = value
    path.write_bytes(bytes(changed))
    try:
        loaded = calibration.load(path)
    except CalibrationError:
        return
    assert np.isfinite(np.concatenate([*loaded.mean.values(), *loaded.std.values()])).all()


def test_a_foreign_safetensors_file_is_refused(path: Path) -> None:
    tensors = {"weight": np.zeros(3, np.float32)}
    _refused(path, save_tensors(tensors), "not one of zmask-export")
    _refused(path, save_tensors(tensors, metadata={"format": "pt"}), "not one of zmask-export")


def test_a_header_that_is_too_deep_is_refused(path: Path) -> None:
    deep = "[" * 50_000
    _refused(path, len(deep).to_bytes(8, "little") + deep.encode())
    _refused(path, save_tensors(dict(_tensors()), metadata={"zmask-export": deep}), "wrong header")


def _tensors() -> dict[str, Any]:
    return dict(load_tensors(DATA))


def _with(tensors: dict[str, Any], **header: Any) -> bytes:
    fields = json.loads(FILE.header.model_dump_json()) | header
    return save_tensors(tensors, metadata={"zmask-export": json.dumps(fields)})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "format version 2, not 1"),
        ({"weights_sha256": "short"}, "weights_sha256"),
        ({"threshold": -1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),  # would never flag
        ({"images": 0}, "images"),
        ({"surplus": 1}, "surplus"),
        ({"input_size": [64]}, "input_size"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_header_is_named(path: Path, header: dict[str, Any], message: str) -> None:
    _refused(path, _with(_tensors(), **header), message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean/late", None, "lacks the tensor mean/late"),
        ("std/early", None, "lacks the tensor std/early"),
        ("mean/early", np.array([1, np.nan], np.float32), "not finite"),
        ("std/late", np.array([np.inf], np.float32), "not finite"),
        ("std/early", np.array([0.5, -0.5], np.float32), "negative standard deviation for early"),
        ("std/early", np.ones(3, np.float32), "different length for early"),
        ("mean/late", np.ones((1, 1), np.float32), "no float32 vector"),
        ("mean/late", np.ones(1, np.float64), "no float32 vector"),
        ("mean/late", np.ones(0, np.float32), "no float32 vector"),
        ("fusion", np.ones(7, np.float32), "7 fusion parameters"),
        ("fusion", np.full(8, np.nan, np.float32), "not finite"),
    ],
)
def test_a_wrong_tensor_is_named(path: Path, name: str, value: Any, message: str) -> None:
    tensors = _tensors()
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    _refused(path, _with(tensors), message)


def test_the_largest_file_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FILE.save(path)
    monkeypatch.setattr(calibration, "_MAX_BYTES", len(DATA))
    assert calibration.load(path).to_bytes() == DATA
    monkeypatch.setattr(calibration, "_MAX_BYTES", len(DATA) - 1)
    with pytest.raises(CalibrationError, match="is larger than"):
        calibration.load(path)


def test_an_enormous_file_is_not_read(path: Path) -> None:
    with path.open("wb") as file:
        os.truncate(file.fileno(), (256 << 20) + 1)
    with pytest.raises(CalibrationError, match="larger than 256 MiB"):
        calibration.load(path)
    path.unlink()

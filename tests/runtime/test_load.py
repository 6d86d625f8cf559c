"""What of a bundle's folder is read, and what its runner is opened with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zmask_export
from tests.runtime.stand_ins import Opened
from zmask_export.errors import BundleError, UsageError
from zmask_export.runtime import choice
from zmask_export.runtime.protected import load_checked


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is opened by one that does not parse it."""
    monkeypatch.setattr(choice, "OnnxRuntimeRunner", Opened)


def test_as_little_as_can_be_said_is_the_best_that_runs_here(detect_bundle: Path) -> None:
    for engine in (zmask_export.load(detect_bundle), load_checked(detect_bundle)[0]):
        assert isinstance(engine.runner, Opened)
        assert engine.runner.options == {"threads": 0, "device": "auto", "precision": "fp32"}
        assert engine.runner.arguments == ((detect_bundle / "protected.onnx").read_bytes(),)
        assert engine.max_covered is None
        assert engine.manifest.name == "detect"


def test_what_is_asked_for_reaches_the_runner(detect_bundle: Path) -> None:
    options: Any = {"backend": "onnxruntime-cpu", "threads": 3, "max_covered": 0.25}
    for engine in (
        zmask_export.load(str(detect_bundle), **options),
        load_checked(str(detect_bundle), **options)[0],
    ):
        assert isinstance(engine.runner, Opened)
        assert engine.runner.options == {"threads": 3, "device": "cpu", "precision": "fp32"}
        assert engine.max_covered == 0.25


def test_files_are_kept_beside_those_that_run(detect_bundle: Path) -> None:
    assert load_checked(detect_bundle)[1].kept.keys() == {"protected.onnx"}
    also = (name for name in ("parity.json", "sbom.cdx.json"))
    checked = load_checked(detect_bundle, also=also)[1]
    assert checked.kept.keys() == {"protected.onnx", "parity.json", "sbom.cdx.json"}
    assert checked.read("parity.json") == (detect_bundle / "parity.json").read_bytes()
    assert checked.folder == detect_bundle


@pytest.mark.parametrize("share", [0, 0.0, 1, 1.0])
def test_nothing_and_everything_are_shares(share: float, detect_bundle: Path) -> None:
    assert zmask_export.load(detect_bundle, max_covered=share).max_covered == share


@pytest.mark.parametrize("share", [-0.001, 1.001, float("nan")])
def test_a_wrong_share_is_found_before_the_bundle_is_read(share: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="covered share"):
        zmask_export.load(tmp_path / "nosuch", max_covered=share)


def test_a_key_is_asked_of_an_unsigned_bundle(detect_bundle: Path) -> None:
    for load in (zmask_export.load, load_checked):
        with pytest.raises(BundleError, match="sign"):
            load(detect_bundle, verify_key=bytes(32))

from __future__ import annotations

import platform
from pathlib import Path

import onnxruntime as ort
import pytest
import torch

from tests.conftest import zmask
from zmask_export.backends import tensorrt
from zmask_export.backends.gpu import gpu_count
from zmask_export.pipeline import doctor_runners


def test_what_is_here_and_what_is_not() -> None:
    outcome = zmask("doctor", "--json")
    assert outcome.code == 0, outcome.err
    found = {finding["what"]: finding for finding in outcome.record["findings"]}
    assert found["Python"]["says"] == platform.python_version()
    assert found["torch"]["says"] == torch.__version__.split("+")[0]
    assert ort.__version__ in found["ONNX Runtime on the CPU"]["says"]
    assert found["ONNX Runtime on the CPU"]["ok"]
    assert found["NVIDIA GPU"]["ok"] == (gpu_count() > 0)
    can = outcome.record["can"]
    assert can["build bundles"]
    assert can["run bundles on the CPU"]
    assert can["build tensorrt-rtx engines"] == (tensorrt.available("tensorrt-rtx") is None)
    if can["build tensorrt-rtx engines"]:
        for capability in tensorrt.supported_capabilities():
            assert capability in found["tensorrt-rtx compiler"]["says"]


def test_every_no_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    record = zmask("doctor", "--json").record
    for finding in record["findings"]:
        assert (finding["fix"] is None) == finding["ok"], finding
    missing = {finding["what"] for finding in record["findings"] if not finding["ok"]}
    assert {"C++17 compiler", "CMake"} <= missing
    assert not record["can"]["compile the C++ runtime"]


def test_a_package_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmask_export.pipeline.doctor.BUILD_PACKAGES", ("numpy", "no-such-thing"))
    monkeypatch.setattr(
        "zmask_export.pipeline.doctor._can", lambda findings: {"counted": len(findings) > 0}
    )
    found = {f["what"]: f for f in zmask("doctor", "--json").record["findings"]}
    assert found["numpy"]["ok"]
    assert not found["no-such-thing"]["ok"]
    assert "zmask-export[build]" in found["no-such-thing"]["fix"]


def test_a_provider_counts_only_where_a_session_opens_on_it() -> None:
    assert doctor_runners._opens("CPUExecutionProvider")
    assert not doctor_runners._opens("NoSuchExecutionProvider")
    assert doctor_runners._opens("CUDAExecutionProvider") == (
        gpu_count() > 0 and "cuda" in doctor_runners.CUDA.lower() and _cuda_loads()
    )


def _cuda_loads() -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        bytes.fromhex(doctor_runners._IDENTITY), options, providers=["CUDAExecutionProvider"]
    )
    return session.get_providers()[0] == "CUDAExecutionProvider"


def test_the_table_is_for_people() -> None:
    outcome = zmask("doctor")
    assert outcome.code == 0
    for text in ("What can be done here", "build bundles", "C++17 compiler", "how to get it"):
        assert text in outcome.out

"""What runs a bundle: asked for, or the best that can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import zmask_export
from tests.conftest import Inputs, assert_refused, zmask
from tests.drawn import SIZE
from zmask_export.artifacts.bundle import read_manifest
from zmask_export.artifacts.manifest import EngineInfo
from zmask_export.backends.gpu import compute_capability, gpu_count
from zmask_export.cli.options import BACKENDS as OFFERED
from zmask_export.errors import BackendUnavailableError, UsageError
from zmask_export.runtime.choice import BACKENDS, batch_limit
from zmask_export.runtime.inputs import BatchLimit

without_a_gpu = pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")


@without_a_gpu
def test_auto_says_why_it_passes_an_engine_over(bundle: Path, detect_bundle: Path) -> None:
    engine = zmask_export.load(bundle)
    assert engine.runner.name == "onnxruntime-cpu"
    flavours = [info.flavour for info in engine.manifest.engines]
    assert len(engine.passed_over) == len(flavours)
    for flavour, reason in zip(flavours, engine.passed_over, strict=True):
        assert reason.startswith(f"A {flavour} engine needs an NVIDIA GPU")
    assert zmask_export.load(detect_bundle).passed_over == ()


@without_a_gpu
@pytest.mark.parametrize("backend", ["tensorrt-rtx", "onnxruntime-cuda"])
def test_a_backend_that_needs_a_gpu(backend: str, bundle: Path, inputs: Inputs) -> None:
    if backend not in [info.flavour for info in read_manifest(bundle).engines] + [
        "onnxruntime-cuda"
    ]:
        pytest.skip("tensorrt-rtx is not on this platform")
    with pytest.raises(BackendUnavailableError, match=r"no NVIDIA GPU|shows none|has no CUDA"):
        zmask_export.load(bundle, backend=backend)  # type: ignore[arg-type]
    outcome = zmask("run", bundle, inputs.image, "--backend", backend)
    assert_refused(outcome, 6, "backend onnxruntime")


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_that_the_bundle_has_not(flavour: str, detect_bundle: Path) -> None:
    with pytest.raises(BackendUnavailableError, match=f"has no {flavour} engine") as caught:
        zmask_export.load(detect_bundle, backend=flavour)  # type: ignore[arg-type]
    assert f"--target {flavour}" in caught.value.fix


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "onnxruntime-cpu"])
def test_the_graph_runs_under_every_name(backend: str, detect_bundle: Path) -> None:
    with zmask_export.load(detect_bundle, backend=backend) as engine:  # type: ignore[arg-type]
        assert engine.runner.name.startswith("onnxruntime-")
        assert engine(np.zeros((*SIZE, 3), np.uint8)).mask.shape == SIZE


def test_what_is_no_backend_is_refused(detect_bundle: Path) -> None:
    with pytest.raises(UsageError, match="no backend 'openvino'"):
        zmask_export.load(detect_bundle, backend="openvino")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="-1 threads"):
        zmask_export.load(detect_bundle, threads=-1)


def test_the_command_line_offers_every_backend() -> None:
    assert OFFERED == BACKENDS


@pytest.mark.parametrize(
    ("batch", "limit"), [(4, BatchLimit(4, exact=True)), ((1, 2, 8), BatchLimit(8))]
)
def test_an_engine_takes_the_batches_it_was_compiled_for(
    batch: int | tuple[int, int, int], limit: BatchLimit
) -> None:
    info = EngineInfo(
        file="protected.tensorrt.engine", flavour="tensorrt", version="10", capabilities=(),
        activation_bytes=None, weight_bytes=None, tf32=True, batch=batch,
    )  # fmt: skip
    assert batch_limit(info) == limit


@without_a_gpu
def test_no_gpu_has_no_compute_capability() -> None:
    assert compute_capability() is None

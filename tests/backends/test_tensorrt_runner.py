"""Running compiled engines: what can be shown without a GPU, and a run on a simulated one."""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends import simulated
from zmask_export.backends import cuda as cuda_module
from zmask_export.backends import tensorrt, tensorrt_engine, tensorrt_runner
from zmask_export.backends.cuda import CudaDevice
from zmask_export.backends.gpu import gpu_count
from zmask_export.backends.runner import DeviceArray
from zmask_export.backends.tensorrt_engine import (
    deserialise,
    error_log,
    fits,
    numpy_dtype,
    require_runnable,
)
from zmask_export.backends.tensorrt_runner import TensorRtRunner
from zmask_export.errors import BackendError, BackendUnavailableError, ShapeError, UsageError

needs_the_package = pytest.mark.skipif(
    tensorrt.available("tensorrt-rtx") is not None, reason="tensorrt-rtx is not on this platform"
)
without_a_gpu = pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
IMAGES = np.random.default_rng(0).random((9, 3, 4, 5), np.float32)
LIMIT = np.array([30], np.float32)


@pytest.mark.parametrize(
    ("capability", "flavour", "capabilities", "may"),
    [
        ("8.9", "tensorrt-rtx", ("8.6", "8.9"), True),
        ("8.0", "tensorrt-rtx", ("8.6", "8.9"), False),
        ("8.6", "tensorrt-rtx", (), True),
        ("9.0", "tensorrt-rtx", (), False),
        ("12.0", "tensorrt-rtx", (), True),
        ("9.0", "tensorrt", (), True),
    ],
)
def test_an_engine_fits_the_gpus_it_was_compiled_for(
    capability: str, flavour: Any, capabilities: tuple[str, ...], may: bool
) -> None:
    assert fits(capability, flavour, capabilities) is may


@needs_the_package
def test_every_type_of_our_outputs_has_a_form_in_numpy() -> None:
    trt = tensorrt.require("tensorrt-rtx")
    for kind, expected in (("FLOAT", "f4"), ("BOOL", "?"), ("INT64", "i8"), ("HALF", "f2")):
        assert numpy_dtype(getattr(trt.DataType, kind).name) == np.dtype(expected)
    with pytest.raises(BackendError, match="type BF16, which NumPy has not"):
        numpy_dtype(trt.DataType.BF16.name)


@without_a_gpu
def test_without_a_gpu_nothing_is_loaded() -> None:
    with pytest.raises(BackendUnavailableError, match="this machine shows none") as caught:
        TensorRtRunner(b"", "tensorrt-rtx")
    assert "onnxruntime" in caught.value.fix


def test_a_gpu_of_another_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_engine, "gpu_count", lambda: 1)
    monkeypatch.setattr(tensorrt_engine, "compute_capability", lambda: "9.0")
    with pytest.raises(BackendUnavailableError, match=r"compute capability 9\.0") as caught:
        require_runnable("tensorrt-rtx", ())
    assert "--compute-capability 9.0" in caught.value.fix


@pytest.mark.parametrize("module", ["cuda.bindings.runtime", "tensorrt_rtx"])
def test_a_package_that_is_not_installed(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if module == "tensorrt_rtx":
        pytest.importorskip("cuda.bindings.runtime")
    monkeypatch.setattr(tensorrt_engine, "gpu_count", lambda: 1)
    monkeypatch.setattr(tensorrt_engine, "compute_capability", lambda: "8.9")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError, match="cannot be imported") as caught:
        require_runnable("tensorrt-rtx", ())
    assert "pip install 'zmask-export[rtx]'" in caught.value.fix


@needs_the_package
@pytest.mark.parametrize("data", ["real", "garbage", "empty"])
@without_a_gpu
def test_the_real_runtime_refuses_with_its_own_reason(data: str, bundle: Path) -> None:
    engine = (bundle / "protected.tensorrt-rtx.engine").read_bytes()
    given = {"real": engine, "garbage": b"no engine", "empty": b""}[data]
    trt = tensorrt.require("tensorrt-rtx")
    with pytest.raises(BackendError, match=r"refuses the engine: .*(Error|CUDA)") as caught:
        deserialise(trt, "tensorrt-rtx", given, error_log(trt))
    assert caught.value.exit_code == 6


@without_a_gpu
def test_real_cuda_without_a_driver_is_an_error_of_ours() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(BackendError, match="CUDA fails in cuda"):
        CudaDevice()


@needs_the_package
@pytest.mark.parametrize(
    ("stand_in", "real"),
    [
        (simulated.Context, "IExecutionContext"),
        (simulated.Engine, "ICudaEngine"),
        (simulated.Runtime, "Runtime"),
    ],
)
def test_the_simulated_calls_are_those_of_the_real_package(stand_in: type, real: str) -> None:
    trt = tensorrt.require("tensorrt-rtx")
    for name, method in inspect.getmembers(stand_in, inspect.isfunction):
        if name.startswith("_"):
            continue
        documented = getattr(getattr(trt, real), name).__doc__
        for parameter in list(inspect.signature(method).parameters)[1:]:
            assert f"{parameter}:" in documented or "get_tensor_" in name, (name, parameter)
    for name in ("INPUT", "OUTPUT"):
        assert hasattr(trt.TensorIOMode, name)
    assert hasattr(trt.TensorLocation, "HOST")


def test_the_simulated_cuda_is_that_of_the_real_package() -> None:
    real = pytest.importorskip("cuda.bindings.runtime")
    for name, _ in inspect.getmembers(simulated.Cuda, inspect.isfunction):
        assert name.startswith("_") or hasattr(real, name)
    for name, value in vars(simulated.Cuda.cudaMemcpyKind).items():
        assert getattr(real.cudaMemcpyKind, name) == value
    for code in simulated.Error:
        assert getattr(real.cudaError_t, code.name) == code.value


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> simulated.Cuda:
    cuda = simulated.Cuda()
    monkeypatch.setattr(cuda_module, "runtime", lambda: cuda)
    monkeypatch.setattr(tensorrt_runner, "require_runnable", lambda *_: simulated.tensorrt(cuda))
    return cuda


def _expected(images: Any) -> dict[str, Any]:
    score = images.sum(axis=(1, 2, 3))
    labels = np.arange(2 * len(images)).reshape(-1, 2)
    return {"score": score, "flag": score > LIMIT, "labels": labels}


def _same(got: dict[str, Any], images: Any) -> None:
    expected = _expected(images)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value)


def test_a_run_copies_in_runs_and_copies_out(gpu: simulated.Cuda) -> None:
    runner = TensorRtRunner(b"engine", "tensorrt-rtx")
    assert runner.name == "tensorrt-rtx"
    # Smaller, larger and strided batches in one set of buffers.
    for images in (IMAGES[:2], IMAGES[2:3], IMAGES[4:8], IMAGES[1:8:2], IMAGES[:4, ::-1]):
        _same(runner.run({"image": images, "threshold": LIMIT}), images)
    assert len(gpu.blocks) == 4  # the threshold is read in main memory


def _aligned(images: Any) -> Any:
    """A copy that begins where an engine may read it."""
    room = np.empty(images.nbytes + 256, np.uint8)
    start = -room.ctypes.data % 256
    copy = room[start : start + images.nbytes].view(np.float32).reshape(images.shape)
    copy[:] = images
    return copy


def test_an_image_on_the_gpu_is_read_where_it_lies(gpu: simulated.Cuda) -> None:
    runner = TensorRtRunner(b"engine", "tensorrt-rtx")
    images = _aligned(IMAGES[:3])
    there = DeviceArray(images.ctypes.data, images.shape, "cuda", 0, images)
    _same(runner.run({"image": there, "threshold": LIMIT}), images)
    assert len(gpu.blocks) == 3  # of outputs
    # An image has 240 bytes: the second one lies where no engine reads.
    _same(runner.run({"image": there.rows(1, 3), "threshold": LIMIT}), images[1:])
    assert len(gpu.blocks) == 4
    assert gpu.device == 1
    for kind, number in (("cpu", 0), ("cuda", 1)):
        wrong: Any = DeviceArray(images.ctypes.data, images.shape, kind, number, images)  # type: ignore[arg-type]
        with pytest.raises(ShapeError, match=f"memory of {kind} {number}"):
            runner.run({"image": wrong, "threshold": LIMIT})


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (IMAGES[:5], "largest batch is 4"),
        (IMAGES[:1, :2], "the graph takes"),
        (IMAGES[:1].astype(np.float64), "is float64"),
        (IMAGES[0], "the graph takes"),
    ],
)
def test_an_input_that_the_engine_does_not_take(image: Any, said: str, gpu: simulated.Cuda) -> None:
    runner = TensorRtRunner(b"engine", "tensorrt-rtx")
    with pytest.raises(ShapeError, match=said):
        runner.run({"image": image, "threshold": LIMIT})
    with pytest.raises(ShapeError, match="threshold is missing"):
        runner.run({"image": IMAGES[:1]})
    _same(runner.run({"image": IMAGES[:1], "threshold": LIMIT}), IMAGES[:1])


def test_a_full_gpu_is_an_error_and_no_leak(gpu: simulated.Cuda) -> None:
    gpu.free = 270
    runner = TensorRtRunner(b"engine", "tensorrt-rtx")
    with pytest.raises(BackendError, match="cudaErrorMemoryAllocation") as caught:
        runner.run({"image": IMAGES[:4], "threshold": LIMIT})
    assert "smaller batch" in caught.value.fix
    _same(runner.run({"image": IMAGES[:1], "threshold": LIMIT}), IMAGES[:1])


def test_the_end_gives_everything_back_once(gpu: simulated.Cuda) -> None:
    runner = TensorRtRunner(b"engine", "tensorrt-rtx")
    runner.run({"image": IMAGES[:2], "threshold": LIMIT})
    runner.close()
    runner.close()
    assert (gpu.blocks, gpu.streams, gpu.free) == ({}, 0, 1 << 30)
    with pytest.raises(UsageError, match="closed"):
        runner.run({"image": IMAGES[:2], "threshold": LIMIT})
    forgotten = TensorRtRunner(b"engine", "tensorrt-rtx")
    forgotten.run({"image": IMAGES[:2], "threshold": LIMIT})
    del forgotten
    assert (gpu.blocks, gpu.streams) == ({}, 0)
    with pytest.raises(BackendError, match="Magic tag does not match"):
        TensorRtRunner(b"other", "tensorrt-rtx")
    assert gpu.streams == 0


def test_threads_take_turns(gpu: simulated.Cuda) -> None:
    runner = TensorRtRunner(b"engine", "tensorrt-rtx")
    problems: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for _ in range(50):
                images = IMAGES[start : start + 1 + start % 4]
                _same(runner.run({"image": images, "threshold": LIMIT}), images)
        except BaseException as exc:  # shown below
            problems.append(exc)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []

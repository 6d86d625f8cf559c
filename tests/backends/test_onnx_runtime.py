from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.small import SIZE, as_float, exported, tiny_images
from zmask_export.backends.gpu import gpu_count
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.errors import BackendError, BackendUnavailableError, ShapeError

IMAGES = as_float(tiny_images())


def test_all_outputs_come_by_name() -> None:
    runner = OnnxRuntimeRunner(exported(None), threads=1)
    got = runner.run({"image": IMAGES})
    assert set(got) == {"logits", "tap.stem", "tap.mid", "tap.tip"}
    assert got["tap.mid"].shape == (4, 32, 12, 16)


def test_name_says_what_runs() -> None:
    expected = "onnxruntime-cuda" if gpu_count() else "onnxruntime-cpu"
    assert OnnxRuntimeRunner(exported(None)).name == expected


@pytest.mark.parametrize(
    "shape", [(1, 3, SIZE[0] + 1, SIZE[1]), (1, 1, *SIZE), (3, *SIZE), (1, *SIZE, 3)]
)
def test_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    runner = OnnxRuntimeRunner(exported(None), threads=1)
    with pytest.raises(ShapeError) as caught:
        runner.run({"image": np.zeros(shape, np.float32)})
    assert str(shape) in caught.value.what
    assert caught.value.exit_code == 4


def test_wrong_batch_of_a_fixed_graph_is_refused() -> None:
    runner = OnnxRuntimeRunner(exported(1), threads=1)
    runner.run({"image": IMAGES[:1]})
    with pytest.raises(ShapeError, match=r"takes \(1, 3"):
        runner.run({"image": IMAGES})


def test_wrong_element_type_is_refused() -> None:
    runner = OnnxRuntimeRunner(exported(None), threads=1)
    with pytest.raises(ShapeError, match="image is float64"):
        runner.run({"image": IMAGES.astype(np.float64)})


def test_missing_input_is_refused() -> None:
    runner = OnnxRuntimeRunner(exported(None), threads=1)
    with pytest.raises(ShapeError, match="image is missing"):
        runner.run({})


@pytest.mark.parametrize(
    "model", [b"", b"no graph at all", exported(None)[:5000]], ids=["empty", "text", "cut short"]
)
def test_garbage_is_refused(model: bytes) -> None:
    with pytest.raises(BackendError, match="cannot load the graph") as caught:
        OnnxRuntimeRunner(model)
    assert caught.value.exit_code == 6


def test_without_onnx_a_graph_of_16_bits_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendUnavailableError, match="16 bits") as caught:
        OnnxRuntimeRunner(b"", precision="bf16")
    assert "pip install onnx" in caught.value.fix


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2,
    reason="wants a second core, and a system that can keep a process to one",
)
def test_a_process_kept_to_one_core_gets_no_thread_on_another(tmp_path: Path) -> None:
    """ONNX Runtime alone counts the machine's cores, and would bind a thread to each of them."""
    graph = tmp_path / "bare.onnx"
    graph.write_bytes(exported(None))
    code = f"""
import os
from pathlib import Path
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {{core}})
before = set(os.listdir("/proc/self/task"))
runner = OnnxRuntimeRunner(Path({str(graph)!r}).read_bytes(), device="cpu")
new = set(os.listdir("/proc/self/task")) - before
print(sum(os.sched_getaffinity(int(task)) != {{core}} for task in new), len(new))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from tests.small import (
    as_float,
    exported,
    fresh,
    random_calibration,
    split_flags,
    tiny_bare,
    tiny_defense,
    tiny_images,
)
from zmask_export.backends import tensorrt
from zmask_export.backends.tensorrt import BatchRange, CompiledEngine, compile_engine
from zmask_export.errors import BackendUnavailableError, CompileError, UsageError
from zmask_export.fuse.batch import fix_batch
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.spec import Policy

pytestmark = pytest.mark.skipif(
    tensorrt.available("tensorrt-rtx") is not None, reason="tensorrt-rtx is not on this platform"
)


@functools.cache
def fused(policy: Policy, batch: int | None) -> bytes:
    bare = tiny_bare()
    calibration = random_calibration(bare, tiny_defense())
    calibration = split_flags(bare, calibration, torch.from_numpy(as_float(tiny_images())))
    return fuse(fresh(exported(batch)), calibration, FuseOptions(policy)).to_bytes()


def compiled(model: bytes, batch: int | None = 1, *capabilities: str) -> CompiledEngine:
    span = BatchRange(largest=4) if batch is None else None
    return compile_engine(model, "tensorrt-rtx", batch=span, capabilities=capabilities)


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("policy", list(Policy))
def test_every_policy_compiles(policy: Policy, batch: int | None) -> None:
    engine = compiled(fused(policy, batch), batch)
    assert engine.flavour == "tensorrt-rtx"
    assert len(engine.data) > 10_000
    assert engine.version.count(".") >= 2
    assert engine.capabilities == ()
    assert not engine.tf32
    assert engine.activation_bytes is not None
    assert engine.activation_bytes > 0
    assert engine.weight_bytes is not None
    assert engine.weight_bytes > 0


def test_second_pass_shares_its_weights() -> None:
    def weights(policy: Policy) -> int:
        return compiled(fused(policy, 1)).weight_bytes or 0

    assert weights(Policy.GATED) <= weights(Policy.DETECT) * 1.05


@pytest.mark.parametrize("policy", list(Policy))
def test_two_builds_of_a_fixed_batch_are_the_same_bytes(policy: Policy) -> None:
    model = fused(policy, 1)
    assert compiled(model).data == compiled(model).data


@pytest.mark.parametrize("policy", list(Policy))
def test_a_dynamic_graph_with_its_batch_fixed_builds_the_same_bytes(policy: Policy) -> None:
    model = fix_batch(fused(policy, None), 1)
    assert compiled(model).data == compiled(model).data


def test_the_caller_s_paths_leave_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer search path of programs, modules or temporary files once moved the compiler's memory."""
    model = fused(Policy.GATED, 1)
    before = compiled(model).data
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/some/long/folder" * 20)
    monkeypatch.setattr(sys, "path", [*sys.path, *(str(tmp_path / str(i)) for i in range(30))])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert compiled(model).data == before


def test_another_process_builds_the_same_bytes(tmp_path: Path) -> None:
    model = fused(Policy.GATED, 1)
    (tmp_path / "model.onnx").write_bytes(model)
    code = (
        "import hashlib, sys; from zmask_export.backends.tensorrt import compile_engine;"
        "model = open(sys.argv[1], 'rb').read();"
        "engine = compile_engine(model, 'tensorrt-rtx', batch=None);"
        "print(hashlib.sha256(engine.data).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.onnx")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7", "TMPDIR": str(tmp_path)},
    )
    assert done.stdout.strip() == hashlib.sha256(compiled(model).data).hexdigest()


def test_engines_of_two_graphs_differ() -> None:
    one, other = fused(Policy.DETECT, 1), fused(Policy.GATED, 1)
    assert compiled(one).data != compiled(other).data


def test_capabilities_are_chosen() -> None:
    model = fused(Policy.DETECT, 1)
    one, two = compiled(model, 1, "8.9"), compiled(model, 1, "8.6", "8.9")
    assert one.capabilities == ("8.9",)
    assert two.capabilities == ("8.6", "8.9")
    assert one.data != two.data


def test_supported_capabilities_are_sorted_versions() -> None:
    known = tensorrt.supported_capabilities()
    assert {"8.6", "8.9"} <= set(known)
    assert known == sorted(known, key=float)


def test_unknown_capability_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"compute capability 3\.5") as caught:
        compiled(fused(Policy.DETECT, 1), 1, "3.5")
    assert "8.9" in caught.value.fix
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("model", [b"", b"no graph at all", exported(1)[:5000]])
def test_garbage_is_refused(model: bytes) -> None:
    with pytest.raises(CompileError, match="refuses the graph") as caught:
        compiled(model)
    assert caught.value.exit_code == 6


def test_dynamic_graph_without_a_range_is_refused_with_the_compilers_reason() -> None:
    with pytest.raises(CompileError, match="optimization profile"):
        compiled(fused(Policy.DETECT, None))


def test_range_of_batches_must_be_in_order() -> None:
    model = fused(Policy.DETECT, None)
    with pytest.raises(CompileError):
        compile_engine(model, "tensorrt-rtx", batch=BatchRange(3, 2, 1))


def test_compiling_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    compiled(fused(Policy.DETECT, 1))
    with pytest.raises(CompileError):
        compiled(b"no graph at all")
    assert list(tmp_path.iterdir()) == []


def test_compiling_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    compiled(fused(Policy.DETECT, 1))
    with pytest.raises(CompileError):
        compiled(b"no graph at all")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(tensorrt.gpu_count() > 0, reason="there is a GPU to build on")
def test_flavour_that_cannot_build_here_says_why() -> None:
    reason = tensorrt.available("tensorrt")
    assert reason is not None
    with pytest.raises(BackendUnavailableError) as caught:
        compile_engine(fused(Policy.DETECT, 1), "tensorrt", batch=None)
    assert caught.value.what == reason
    assert "tensorrt" in reason.lower()
    assert "--target" in caught.value.fix


def test_compiler_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "_START", "import os; os.abort()")
    with pytest.raises(CompileError, match="compiler ended with code -6"):
        compiled(fused(Policy.DETECT, 1))

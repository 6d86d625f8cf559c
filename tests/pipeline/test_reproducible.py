"""build --reproducible: equal bytes, or a refusal."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.conftest import Inputs, assert_refused, command, contents, zmask
from zmask_export.artifacts.signature import Signer
from zmask_export.backends import tensorrt
from zmask_export.errors import UsageError
from zmask_export.pipeline.reproducible import one_thread, require_reproducible


def test_engines_that_two_builds_make_differently_are_refused(inputs: Inputs, out: Path) -> None:
    with pytest.raises(UsageError, match="timing") as caught:
        require_reproducible(["tensorrt-rtx", "tensorrt"], 1)
    assert "--target tensorrt-rtx" in caught.value.fix
    with pytest.raises(UsageError, match="range of batches"):
        require_reproducible(["tensorrt-rtx"], 2)
    require_reproducible(["tensorrt-rtx"], 1)
    require_reproducible([], 8)


def test_a_range_of_batches_is_refused_before_anything_is_opened(inputs: Inputs, out: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    wanted = ("--reproducible", "--target", "tensorrt-rtx", "--max-batch", 4, "--out", out)
    assert_refused(zmask("build", *inputs.random, *wanted), 2, "range of batches", "--batch")
    assert contents(out.parent) == []


def test_the_number_of_threads_comes_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.skipif(
    tensorrt.available("tensorrt") is None, reason="the bundle has an engine of TensorRT"
)
def test_another_build_gives_the_same_bytes(bundle: Path, inputs: Inputs, tmp_path: Path) -> None:
    """In another place, at another time, in another process, with other threads; and signed."""
    pytest.importorskip("cryptography", reason="the extra sign is not installed")
    assert zmask("keygen", tmp_path / "key").code == 0
    other = tmp_path / "elsewhere" / bundle.name
    other.parent.mkdir()
    done = subprocess.run(
        command(
            "build", *inputs.random, "--reproducible", "--sign-key", tmp_path / "key",
            "--out", other,
        ),
        capture_output=True, text=True, check=False, timeout=300, cwd=other.parent,
        env=os.environ | {"OMP_NUM_THREADS": "2", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in contents(bundle):
        assert (bundle / name).read_bytes() == (other / name).read_bytes(), name
    assert set(contents(other)) - set(contents(bundle)) == {"manifest.sig"}
    signature = Signer(tmp_path / "key").sign((bundle / "manifest.json").read_bytes())
    assert (other / "manifest.sig").read_bytes() == signature

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from zmask_export.defense.baselines import statistics
from zmask_export.defense.baselines.fpda import Fpda
from zmask_export.defense.baselines.hyperneuron import HyperNeuron
from zmask_export.defense.baselines.statistics import RivalHeader, RivalStatistics, load
from zmask_export.errors import CalibrationError, OutputError
from zmask_export.spec import PREPROCESS

HEADER = RivalHeader(
    tool_version="test",
    model="tiny",
    weights_sha256="0" * 64,
    preprocess=PREPROCESS["unit"],
    input_size=(48, 64),
    tap="tip",
    images=3,
    dataset_sha256="1" * 64,
)


def _statistics() -> RivalStatistics:
    torch.manual_seed(0)
    hyperneuron = HyperNeuron(torch.randn(3, 4, 5), torch.rand(3, 4, 5))
    return RivalStatistics(HEADER, hyperneuron, Fpda(torch.randn(4, 5), torch.rand(4, 5)))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "rivals.safetensors"
    _statistics().save(path)
    return path


def test_what_is_saved_comes_back(saved: Path) -> None:
    first, again = _statistics(), load(saved)
    assert again.header == HEADER
    h = torch.randn(2, 3, 4, 5)
    assert torch.equal(again.hyperneuron(h), first.hyperneuron(h))
    assert torch.equal(again.fpda(h), first.fpda(h))
    over = Fpda(first.fpda.mean, first.fpda.std, positive=True)
    assert torch.equal(load(saved, positive=True).fpda(h), over(h))


def test_equal_statistics_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "again")
    assert saved.read_bytes() == (tmp_path / "again").read_bytes()


def _rewrite(path: Path, tensors: dict[str, Any], header: str | None = None) -> None:
    state: dict[str, NDArray[Any]] = {**load_file(path), **tensors}
    record = header or HEADER.model_dump_json()
    kept = {name: value for name, value in state.items() if value is not None}
    save_file(kept, path, metadata={"zmask-export-rivals": record})


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"fpda/std": None}, "lacks fpda/std"),
        ({"fpda/mean": np.zeros((4, 5))}, "lacks fpda/mean as a float32"),
        ({"fpda/mean": np.zeros(20, np.float32)}, "2 dimensions"),
        ({"fpda/std": np.zeros((4, 6), np.float32)}, "different shapes"),
        ({"fpda/std": np.full((4, 5), -1, np.float32)}, "negative"),
        ({"hyperneuron/mean": np.full((3, 4, 5), np.nan, np.float32)}, "finite"),
        ({f"hyperneuron/{k}": np.zeros((3, 0, 5), np.float32) for k in ("mean", "std")}, "none"),
        ({f"fpda/{k}": np.zeros((5, 4), np.float32) for k in ("mean", "std")}, "different sizes"),
    ],
)
def test_wrong_statistics_are_refused(saved: Path, tensors: dict[str, Any], words: str) -> None:
    _rewrite(saved, tensors)
    with pytest.raises(CalibrationError, match=words):
        load(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": statistics.FORMAT_VERSION + 1}, "format version 2"),
        ({"images": 0}, "wrong header: images"),
        ({"foreign": 1}, "wrong header: foreign"),
    ],
)
def test_wrong_headers_are_refused(saved: Path, change: dict[str, Any], words: str) -> None:
    _rewrite(saved, {}, json.dumps(json.loads(HEADER.model_dump_json()) | change))
    with pytest.raises(CalibrationError, match=words):
        load(saved)


def test_files_of_another_kind_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        load(tmp_path / "nowhere")
    save_file({"fpda/mean": np.zeros(1, np.float32)}, tmp_path / "foreign")
    with pytest.raises(CalibrationError, match="no statistics of HN and FPDA"):
        load(tmp_path / "foreign")
    saved.write_bytes(saved.read_bytes()[:-7])
    with pytest.raises(CalibrationError, match="cut short"):
        load(saved)


def test_a_place_that_takes_no_file_is_refused(saved: Path) -> None:
    with pytest.raises(OutputError):
        _statistics().save(saved / "rivals.safetensors")

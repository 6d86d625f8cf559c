"""Checkpoints that are damaged or that carry code."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.models.tiny import TINY
from zmask_export.errors import WeightsError
from zmask_export.models import weights

State = dict[str, Any]


@pytest.fixture
def state() -> State:
    return dict(weights.random_network(TINY, seed=3).state_dict())


class _Code:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_code_in_a_checkpoint_never_runs(
    tmp_path: Path, state: State, form: str, suffix: str
) -> None:
    marker = tmp_path / "it-ran"
    path = tmp_path / f"weights{suffix}"
    content = {**state, "surprise": _Code(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError):
        weights.load_network(TINY, path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(_Code(marker)))  # noqa: S301
    assert marker.exists(), "the code of this test would have run"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One checkpoint in every kind of file."""
    folder = tmp_path_factory.mktemp("weights")
    state = weights.random_network(TINY).state_dict()
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "plain.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


KINDS = ("zip.pt", "legacy.pt", "plain.safetensors")


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(KINDS), share=st.floats(0, 0.999))
def test_a_file_cut_short_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], name: str, share: float
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(files[name][: int(share * len(files[name]))])
    with pytest.raises(WeightsError) as caught:
        weights.load_network(TINY, path)
    assert name in caught.value.what


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(KINDS), random=st.binary(max_size=120))
def test_damage_gives_weights_or_a_weights_error(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    data: st.DataObject,
    name: str,
    random: bytes,
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    damaged = bytearray(files[name])
    start = data.draw(st.integers(0, min(len(damaged), 1500)))
    damaged[start : start + len(random)] = random
    for content in (bytes(damaged), files[name][:2] + random, random):
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network, _ = weights.load_network(TINY, path)
        except WeightsError:
            continue
        assert all(value.isfinite().all() for value in network.state_dict().values())

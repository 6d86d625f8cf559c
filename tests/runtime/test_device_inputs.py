"""What lies on a GPU is taken as it is: by its address, and never looked into."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.runtime.stand_ins import SIZE, OnGpu
from zmask_export.backends import dlpack
from zmask_export.backends.runner import DeviceArray
from zmask_export.errors import ShapeError
from zmask_export.runtime.inputs import BatchLimit, prepare

FLOATS = np.random.default_rng(0).random((3, 3, *SIZE), np.float32)
TAKES = "The engine takes uint8 (H, W, 3) or float32 (N, 3, 4, 6), got "
GIVE = "Give RGB images as uint8 (H, W, 3), or a float32 batch (N, 3, 4, 6) in [0, 1]."


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the GPUs that were waited for; none is there."""
    waited: list[int] = []
    monkeypatch.setattr(dlpack, "wait_for_default_stream", waited.append)
    return waited


def test_a_batch_is_taken_by_its_address(gpu: list[int]) -> None:
    prepared = prepare(OnGpu(FLOATS), SIZE)
    batch = prepared.batch
    assert isinstance(batch, DeviceArray)
    assert not prepared.single
    assert batch.pointer == FLOATS.ctypes.data
    assert (batch.shape, batch.kind, batch.number) == ((3, 3, *SIZE), "cuda", 1)
    assert gpu == [1]


def test_an_image_becomes_a_batch_of_one() -> None:
    prepared = prepare(OnGpu(FLOATS[1]), SIZE)
    batch = prepared.batch
    assert isinstance(batch, DeviceArray)
    assert prepared.single
    assert batch.pointer == FLOATS[1].ctypes.data
    assert (batch.shape, batch.kind, batch.number) == ((1, 3, *SIZE), "cuda", 1)
    # Its memory lives as long as it.
    assert batch.owner.data_ptr() == batch.pointer


def test_values_are_not_looked_for() -> None:
    assert len(prepare(OnGpu(FLOATS * np.float32(np.nan)), SIZE).batch) == 3


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (OnGpu(FLOATS[0, 0]), "float32 on a GPU (4, 6)"),
        (OnGpu(FLOATS[None]), "float32 on a GPU (1, 3, 3, 4, 6)"),
        (OnGpu(FLOATS.reshape(3, 3, 6, 4)), "float32 on a GPU (3, 3, 6, 4)"),
        ([OnGpu(FLOATS[0])], "float32 on a GPU (3, 4, 6)"),
    ],
)
def test_another_shape_is_refused(image: Any, said: str) -> None:
    with pytest.raises(ShapeError) as caught:
        prepare(image, SIZE)
    assert (caught.value.what, caught.value.fix) == (f"{TAKES}{said}.", GIVE)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ShapeError) as caught:
        prepare(OnGpu(FLOATS[:0]), SIZE)
    assert (caught.value.what, caught.value.fix) == ("The batch is empty.", GIVE)


def test_a_batch_is_cut_where_it_lies() -> None:
    batch = prepare(OnGpu(FLOATS), SIZE).batch
    parts = list(BatchLimit(2).cut(batch))
    assert [(part.pointer, part.shape[0], used) for part, used in parts] == [
        (FLOATS.ctypes.data, 2, 2),
        (FLOATS[2:].ctypes.data, 1, 1),
    ]
    with pytest.raises(ShapeError) as caught:
        list(BatchLimit(2, exact=True).cut(batch))
    assert caught.value.what == "The engine takes 2 images at a time, got 3 on a GPU."
    assert caught.value.fix == "Give a multiple of 2, or a batch in main memory."

"""Every form of image becomes the same batch, copied only where it must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zmask_export.backends import dlpack
from zmask_export.backends.gpu import gpu_count
from zmask_export.backends.runner import DeviceArray
from zmask_export.data.images import resize, to_float
from zmask_export.errors import BackendError, ImageError, ShapeError
from zmask_export.runtime.inputs import BatchLimit, prepare

SIZE = (24, 32)
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(3)]
FLOATS = to_float(PICTURES)


class Elsewhere:
    """A tensor that says it lies on another device, with another's capsule."""

    def __init__(self, kind: int, source: Any = FLOATS) -> None:
        self.kind = kind
        self.source = source

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, **_: object) -> Any:
        return self.source.__dlpack__()


@pytest.mark.parametrize(
    ("given_as", "count", "single"),
    [
        (PICTURES[0], 1, True),
        (np.stack(PICTURES), 3, False),
        (PICTURES, 3, False),
        (tuple(PICTURES), 3, False),
        (PICTURES[:1], 1, False),
        (FLOATS, 3, False),
        (FLOATS[0], 1, True),
        (torch.from_numpy(PICTURES[0]), 1, True),
        (torch.from_numpy(np.stack(PICTURES)), 3, False),
        ([torch.from_numpy(picture) for picture in PICTURES], 3, False),
        (torch.from_numpy(FLOATS), 3, False),
        (torch.from_numpy(FLOATS[0]), 1, True),
    ],
)
def test_every_form_gives_the_same_floats(given_as: Any, count: int, single: bool) -> None:
    prepared = prepare(given_as, SIZE)
    assert prepared.single is single
    assert isinstance(prepared.batch, np.ndarray)
    assert prepared.batch.dtype == np.float32
    np.testing.assert_array_equal(prepared.batch, FLOATS[:count])


def test_pictures_of_a_list_may_have_several_sizes() -> None:
    large = RNG.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    batch = prepare([PICTURES[0], large], SIZE).batch
    np.testing.assert_array_equal(batch, to_float([PICTURES[0], resize(large, SIZE)]))
    with pytest.raises(ImageError, match="too far"):
        prepare([PICTURES[0], large[:16]], SIZE)


@pytest.mark.parametrize("source", [FLOATS, FLOATS[0], torch.from_numpy(FLOATS)])
def test_floats_in_main_memory_are_not_copied(source: Any) -> None:
    assert np.shares_memory(prepare(source, SIZE).batch, np.asarray(source))


@pytest.mark.parametrize(
    "wrong",
    [
        "street.png",
        None,
        3,
        [],
        [None],
        [FLOATS[0]],
        [PICTURES[0], PICTURES[0][..., 0]],
        np.zeros((0, *SIZE, 3), np.uint8),
        np.zeros((0, 32, 3), np.uint8),
        np.zeros((2, 3, *SIZE), np.uint8),
        np.zeros((1, 1, 3, *SIZE), np.float32),
        np.zeros((*SIZE, 3), np.float32),
        FLOATS.astype(np.float64),
        FLOATS * 2,
        FLOATS * np.float32(np.nan),
        np.zeros((*SIZE, 3), object),
        torch.zeros((1, 3, *SIZE), requires_grad=True),
        torch.zeros((1, 3, *SIZE), dtype=torch.bfloat16),
        torch.zeros((1, 3, *SIZE), device="meta"),
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_is_no_image_is_refused(wrong: Any) -> None:
    with pytest.raises(ShapeError) as caught:
        prepare(wrong, SIZE)
    assert caught.value.fix


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ShapeError, match="type 8"):
        prepare(Elsewhere(8), SIZE)


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
def test_an_array_on_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(BackendError, match="gives no access to GPU 0"):
        prepare(Elsewhere(2), SIZE)


def _bound(source: Any) -> DeviceArray:
    return dlpack.bound(source.__dlpack__(), "cpu", 0)


@pytest.mark.parametrize("source", [FLOATS, torch.from_numpy(FLOATS)])
def test_a_capsule_is_read_where_it_lies(source: Any) -> None:
    array = _bound(source)
    assert array.pointer == FLOATS.ctypes.data
    assert array.shape == FLOATS.shape
    assert len(array) == 3


def test_rows_lie_in_the_same_memory() -> None:
    part = _bound(FLOATS).rows(1, 3)
    assert part.pointer == FLOATS[1:].ctypes.data
    assert part.shape == (2, 3, *SIZE)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (torch.from_numpy(FLOATS).permute(0, 2, 3, 1), "contiguous"),
        (torch.zeros((1, 3, *SIZE), dtype=torch.float64), "double"),
        (torch.zeros((1, *SIZE, 3), dtype=torch.uint8), "uint8"),
    ],
)
def test_a_capsule_of_another_form_is_refused(source: torch.Tensor, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        _bound(source)


@given(
    count=st.integers(1, 12),
    limit=st.builds(BatchLimit, st.integers(1, 5), st.booleans()) | st.just(BatchLimit()),
)
def test_parts_put_together_are_the_batch(count: int, limit: BatchLimit) -> None:
    batch = np.arange(count * 6, dtype=np.float32).reshape(count, 3, 2, 1)
    parts = list(limit.cut(batch))
    joined = np.concatenate([part[:used] for part, used in parts])
    np.testing.assert_array_equal(joined, batch)
    sizes = {len(part) for part, _ in parts}
    assert max(sizes) <= (limit.largest or count)
    if limit.exact:
        assert sizes == {limit.largest}
    for part, used in parts:
        np.testing.assert_array_equal(
            part[used:], np.repeat(part[used - 1 : used], len(part) - used, 0)
        )


def test_a_part_on_a_gpu_is_not_filled_up() -> None:
    limit = BatchLimit(2, exact=True)
    array = _bound(FLOATS)
    assert [part.shape[0] for part, _ in limit.cut(array.rows(0, 2))] == [2]
    with pytest.raises(ShapeError, match="2 images at a time, got 3"):
        list(limit.cut(array))


def test_the_image_is_left_as_it_was() -> None:
    before: NDArray[np.uint8] = PICTURES[0].copy()
    prepare(PICTURES[0], SIZE)
    np.testing.assert_array_equal(PICTURES[0], before)

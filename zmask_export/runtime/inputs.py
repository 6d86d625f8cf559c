"""What an engine takes: every form of image as one float batch, copied only where it must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmask_export.backends.dlpack import view
from zmask_export.backends.runner import DeviceArray
from zmask_export.data import images
from zmask_export.errors import ShapeError

Batch = NDArray[np.float32] | DeviceArray


@dataclass(frozen=True)
class Prepared:
    """A batch for a graph.

    Attributes:
        batch: float32 (N, 3, H, W) in [0, 1].
        single: it was given as one image, not as a batch of one.
    """

    batch: Batch
    single: bool


@dataclass(frozen=True)
class BatchLimit:
    """Images that a graph takes at once.

    Attributes:
        largest: at most so many; None takes any number.
        exact: always ``largest``.
    """

    largest: int | None = None
    exact: bool = False

    def cut(self, batch: Batch) -> Iterator[tuple[Batch, int]]:
        """Parts that the graph takes, each with the number of images of ``batch`` in it.

        A part that is too short for a graph of a fixed batch is filled up with its last image.

        Raises:
            ShapeError: such a part lies on a GPU, where nothing is copied.
        """
        step = self.largest or len(batch)
        for start in range(0, len(batch), step):
            count = min(step, len(batch) - start)
            part = _rows(batch, start, start + count)
            if self.exact and count < step:
                if isinstance(part, DeviceArray):
                    raise ShapeError(
                        f"The engine takes {step} images at a time, got {len(batch)} on a GPU.",
                        fix=f"Give a multiple of {step}, or a batch in main memory.",
                    )
                part = np.concatenate([part, np.repeat(part[-1:], step - count, axis=0)])
            yield part, count


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    return batch.rows(start, stop) if isinstance(batch, DeviceArray) else batch[start:stop]


def prepare(image: Any, size: tuple[int, int]) -> Prepared:
    """Bring what was given into the form that a graph takes.

    Args:
        image: uint8 (H, W, 3) or (N, H, W, 3) RGB, or a list of uint8 (H, W, 3): resized where need
            be. Or float32 (3, H, W) or (N, 3, H, W) in [0, 1] of the graph's size, taken as it is.
            As NumPy arrays, or as anything with ``__dlpack__``; on a GPU, float32 alone.
        size: (H, W) of the graph.

    Raises:
        ShapeError: another shape, dtype or device; floats outside [0, 1] or not finite, which are not
            looked for on a GPU (there the score says what is not finite).
        ImageError: an aspect ratio too far from the graph's.
    """
    if isinstance(image, (list, tuple)):
        return Prepared(_floats([_picture(item, size) for item in image], size), single=False)
    array = view(image)
    if not isinstance(array, DeviceArray) and array.dtype == np.uint8:
        if array.ndim == 3:
            return Prepared(_floats([_picture(array, size)], size), single=True)
        if array.ndim == 4:
            return Prepared(_floats([_picture(item, size) for item in array], size), single=False)
    return _prepared_floats(array, size)


def _picture(item: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    array = view(item)
    if isinstance(array, DeviceArray):
        raise _wrong(array, size)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise _wrong(array, size)
    return images.resize(array, size)


def _floats(pictures: list[NDArray[np.uint8]], size: tuple[int, int]) -> NDArray[np.float32]:
    if not pictures:
        raise ShapeError("The batch is empty.", fix=_fix(size))
    return images.to_float(pictures)


def _prepared_floats(array: NDArray[Any] | DeviceArray, size: tuple[int, int]) -> Prepared:
    single = len(array.shape) == 3
    if tuple(array.shape[-3:]) != (3, *size) or len(array.shape) not in (3, 4):
        raise _wrong(array, size)
    if isinstance(array, DeviceArray):
        batch: Batch = DeviceArray(
            array.pointer, (1, 3, *size) if single else array.shape,
            array.kind, array.number, array.owner,
        )  # fmt: skip
        if not len(batch):
            raise ShapeError("The batch is empty.", fix=_fix(size))
        return Prepared(batch, single)
    if array.dtype != np.float32:
        raise _wrong(array, size)
    # Written so that NaN fails the comparison.
    if not array.size or not (array.min() >= 0 and array.max() <= 1):
        raise ShapeError(
            "The image holds NaN, infinity or values outside [0, 1], or is empty.",
            fix="Scale 8-bit images by 1/255 and check the camera's conversion.",
        )
    return Prepared(array[None] if single else array, single)


def _wrong(array: NDArray[Any] | DeviceArray, size: tuple[int, int]) -> ShapeError:
    dtype = "float32 on a GPU" if isinstance(array, DeviceArray) else array.dtype
    return ShapeError(
        f"The engine takes uint8 (H, W, 3) or float32 (N, 3, {size[0]}, {size[1]}), "
        f"got {dtype} {tuple(array.shape)}.",
        fix=_fix(size),
    )


def _fix(size: tuple[int, int]) -> str:
    return (
        "Give RGB images as uint8 (H, W, 3), or a float32 batch "
        f"(N, 3, {size[0]}, {size[1]}) in [0, 1]."
    )

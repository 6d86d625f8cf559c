from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.pictures import (
    CONVERTIBLE,
    DEEP_RGB,
    FLOAT_TIFF,
    JPEG,
    PNG,
    SIZE,
    WRONG,
    encode,
    pixels,
)
from zmask_export.data import images
from zmask_export.errors import ImageError


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_rgb_image_is_refused_with_a_fix(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        images.decode(data, "street.png")
    assert caught.value.what.startswith("street.png ")
    assert caught.value.fix


@pytest.mark.parametrize("name", WRONG)
def test_convert_changes_colours_and_forgives_nothing_else(name: str) -> None:
    data, message = WRONG[name]
    if name in CONVERTIBLE:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(images.decode(data, name, convert=True), expected)
        assert expected.shape == (*SIZE, 3)
        with pytest.raises(ImageError) as caught:
            images.decode(data, name)
        assert "--on-bad-image convert" in caught.value.fix
    else:
        with pytest.raises(ImageError, match=message) as caught:
            images.decode(data, name, convert=True)
        assert "convert" not in caught.value.fix


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_files_give_their_pixels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode(Image.fromarray(pixels(3)), kind))
    np.testing.assert_array_equal(images.read(path), pixels(3))


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_a_width_does_not_look_like_a_depth(kind: str) -> None:
    wide = pixels(size=(16, 540))  # rows of 1620 bytes
    np.testing.assert_array_equal(images.decode(encode(Image.fromarray(wide), kind), "x"), wide)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match="cannot be read"):
            images.read(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), source=st.sampled_from([PNG, JPEG, FLOAT_TIFF, DEEP_RGB, b""]))
def test_damage_never_gives_another_error(data: st.DataObject, source: bytes) -> None:
    damaged = bytearray(source[: data.draw(st.integers(0, len(source)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            position = data.draw(st.integers(0, len(damaged) - 1))
            damaged[position] = data.draw(st.integers(0, 255))
    damaged += data.draw(st.binary(max_size=20))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoded = images.decode(bytes(damaged), "x", convert=True)
    except ImageError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape[2] == 3


def test_resize_keeps_an_image_of_the_right_size() -> None:
    image = pixels()
    assert images.resize(image, SIZE) is image


def test_resize_averages_when_it_shrinks() -> None:
    board = np.zeros((64, 64, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    shrunk = images.resize(board, (16, 16))
    assert shrunk.shape == (16, 16, 3)
    assert np.abs(shrunk.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(
    ("size", "good"),
    [((40, 80), True), ((40, 81), False), ((80, 40), True), ((81, 40), False), ((20, 20), True)],
)
def test_an_image_is_stretched_by_a_factor_of_two_at_most(
    size: tuple[int, int], good: bool
) -> None:
    image = pixels(size=(40, 40))
    if good:
        assert images.resize(image, size).shape == (*size, 3)
    else:
        with pytest.raises(ImageError, match=r"street\.png is 40 x 40") as caught:
            images.resize(image, size, name="street.png")
        assert "Crop" in caught.value.fix


def test_to_float_gives_a_batch_in_0_1() -> None:
    first, second = pixels(1), np.full((*SIZE, 3), 255, np.uint8)
    batch = images.to_float([first, second])
    assert batch.shape == (2, 3, *SIZE)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch[0].transpose(1, 2, 0), first.astype(np.float32) / 255)
    assert (batch[1] == 1).all()

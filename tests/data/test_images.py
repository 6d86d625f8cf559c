from __future__ import annotations

import hashlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from zmask_export.data import images
from zmask_export.data.drawn import DrawnScenes
from zmask_export.data.images import ImageFolder
from zmask_export.data.scene import draw_scene
from zmask_export.errors import DatasetError, ImageError, UsageError

SIZE = (24, 32)


def _pixels(seed: int = 0, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def _encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _mode(mode: str, kind: str = "PNG") -> bytes:
    return _encode(Image.fromarray(_pixels()).convert(mode), kind)


def _png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PNG = _encode(Image.fromarray(_pixels()))
JPEG = _encode(Image.fromarray(_pixels()), "JPEG")
DEEP_RGB = _png(32, 24, 16, 2, (b"\0" + bytes(32 * 6)) * 24)
DEEP_GREY = _encode(Image.fromarray(np.full(SIZE, 40_000, np.uint16)))
FLOAT_TIFF = _encode(Image.fromarray(np.zeros(SIZE, np.float32)), "TIFF")

WRONG = {
    "grey": (_mode("L"), "grey image"),
    "grey with alpha": (_mode("LA"), "grey image with alpha"),
    "rgba": (_mode("RGBA"), "RGBA"),
    "palette": (_mode("P"), "palette"),
    "black and white": (_mode("1"), "black-and-white"),
    "cmyk": (_mode("CMYK", "JPEG"), "CMYK"),
    "16-bit grey": (DEEP_GREY, "16-bit"),
    "16-bit rgb": (DEEP_RGB, "16 bits"),
    "float": (FLOAT_TIFF, "floating-point"),
    "1 x 1": (_encode(Image.new("RGB", (1, 1))), "only 1 x 1"),
    "cut JPEG": (JPEG[: len(JPEG) // 2], "cut short"),
    "cut PNG": (PNG[:-40], "cut short"),
    "text": (b"not an image at all\n" * 10, "is not an image"),
    "empty": (b"", "is not an image"),
    "header only": (PNG[:8], "is not an image"),
    "bomb": (_png(20_000, 20_000, 8, 2, b""), "enormous"),
    "small bomb": (_png(11_000, 11_000, 8, 2, b""), "enormous"),
}
CONVERTIBLE = ("grey", "grey with alpha", "rgba", "palette", "black and white", "cmyk")


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
    path.write_bytes(_encode(Image.fromarray(_pixels(3)), kind))
    np.testing.assert_array_equal(images.read(path), _pixels(3))


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_a_width_does_not_look_like_a_depth(kind: str) -> None:
    wide = _pixels(size=(16, 540))  # rows of 1620 bytes
    np.testing.assert_array_equal(images.decode(_encode(Image.fromarray(wide), kind), "x"), wide)


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
    image = _pixels()
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
    image = _pixels(size=(40, 40))
    if good:
        assert images.resize(image, size).shape == (*size, 3)
    else:
        with pytest.raises(ImageError, match=r"street\.png is 40 x 40") as caught:
            images.resize(image, size, name="street.png")
        assert "Crop" in caught.value.fix


def test_to_float_gives_a_batch_in_0_1() -> None:
    first, second = _pixels(1), np.full((*SIZE, 3), 255, np.uint8)
    batch = images.to_float([first, second])
    assert batch.shape == (2, 3, *SIZE)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch[0].transpose(1, 2, 0), first.astype(np.float32) / 255)
    assert (batch[1] == 1).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good images in nested folders, of mixed sizes, and one hidden file."""
    root = tmp_path / "images"
    for index, name in enumerate(("b.png", "a/z.jpg", "a/c/d.png", "c.PNG", "a.bmp")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (24 + 4 * index, 32)
        Image.fromarray(_pixels(index, size)).save(path)
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails" / "x.png").write_bytes(b"hidden")
    (root / ".DS_Store").write_bytes(b"hidden")
    return root


NAMES = ["a/c/d.png", "a/z.jpg", "a.bmp", "b.png", "c.PNG"]


def test_a_folder_gives_all_images_in_a_fixed_order_and_one_size(folder: Path) -> None:
    source = ImageFolder(folder, SIZE)
    frames = [frame for frame in source.frames() if frame is not None]
    assert [frame.name for frame in frames] == source.names == NAMES
    assert {frame.image.shape for frame in frames} == {(*SIZE, 3)}
    for frame in frames:
        data = (folder / frame.name).read_bytes()
        assert frame.digest == hashlib.sha256(data).hexdigest()
        expected = images.resize(images.decode(data, ""), SIZE)
        np.testing.assert_array_equal(frame.image, expected)


@pytest.mark.parametrize("start", range(6))
def test_a_folder_can_be_read_from_the_middle(folder: Path, start: int) -> None:
    frames = list(ImageFolder(folder, SIZE).frames(start))
    assert [frame.name for frame in frames if frame is not None] == NAMES[start:]


def test_a_reader_may_stop_early(folder: Path) -> None:
    before = threading.active_count()
    frames = ImageFolder(folder, SIZE).frames()
    assert next(frames) is not None
    frames.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_bad_file_stops_by_default_and_is_named(folder: Path) -> None:
    (folder / "b.png").write_bytes(WRONG["text"][0])
    frames = ImageFolder(folder, SIZE).frames()
    assert [next(frames).name for _ in range(3)] == NAMES[:3]  # type: ignore[union-attr]
    with pytest.raises(ImageError, match=r"b\.png is not an image"):
        next(frames)


def test_skip_leaves_bad_files_out_and_says_so(folder: Path) -> None:
    (folder / "b.png").write_bytes(WRONG["grey"][0])
    (folder / "notes.txt").write_text("taken in May")
    (folder / "panorama.png").write_bytes(_encode(Image.new("RGB", (400, 20))))
    told: list[ImageError] = []
    items = list(ImageFolder(folder, SIZE, on_bad="skip").frames(on_skip=told.append))
    assert [item and item.name for item in items] == [*NAMES[:3], None, NAMES[4], None, None]
    assert len(told) == 3
    for error, name in zip(told, ("b.png", "notes.txt", "panorama.png"), strict=True):
        assert name in error.what


def test_convert_reads_other_colours(folder: Path) -> None:
    for name in ("b.png", "c.PNG"):
        (folder / name).write_bytes(WRONG["rgba"][0])
    (folder / "a" / "z.jpg").write_bytes(WRONG["cmyk"][0])
    frames = list(ImageFolder(folder, SIZE, on_bad="convert").frames())
    assert [frame.name for frame in frames if frame is not None] == NAMES
    (folder / "b.png").write_bytes(WRONG["empty"][0])
    with pytest.raises(ImageError, match=r"b\.png"):
        list(ImageFolder(folder, SIZE, on_bad="convert").frames())


def _nothing(root: Path) -> None:
    root.mkdir()


def _other_files(root: Path) -> None:
    root.mkdir()
    (root / "labels.txt").write_text("x")


def _hidden_images(root: Path) -> None:
    root.mkdir()
    (root / ".x.png").write_bytes(PNG)


def _a_file(root: Path) -> None:
    root.write_bytes(PNG)


@pytest.mark.parametrize("make", [_nothing, _other_files, _hidden_images, _a_file, None])
def test_a_folder_without_images_is_refused(
    tmp_path: Path, make: Callable[[Path], None] | None
) -> None:
    if make is not None:
        make(tmp_path / "images")
    with pytest.raises(DatasetError, match="images") as caught:
        ImageFolder(tmp_path / "images", SIZE)
    assert "folder" in caught.value.fix


@given(count=st.integers(1, 60), limit=st.integers(1, 80))
def test_a_limit_is_spread_evenly(count: int, limit: int) -> None:
    paths = [Path(f"{index:03d}") for index in range(count)]
    picked = images.spread(paths, limit)
    assert len(picked) == len(set(picked)) == min(count, limit)
    assert picked == sorted(picked)
    assert picked[0] == paths[0]
    if limit > 1:
        assert picked[-1] == paths[-1]
        places = [paths.index(path) for path in picked]
        assert max(np.diff(places), default=0) - min(np.diff(places), default=0) <= 1


def test_without_a_limit_all_are_taken(folder: Path) -> None:
    assert len(ImageFolder(folder, SIZE)) == 5
    assert ImageFolder(folder, SIZE, limit=2).names == [NAMES[0], NAMES[-1]]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(folder: Path, limit: int) -> None:
    with pytest.raises(UsageError, match="leaves no image"):
        ImageFolder(folder, SIZE, limit=limit)


def test_drawn_scenes_are_those_of_their_seeds() -> None:
    source = DrawnScenes((64, 80), 3, first=5)
    frames = [frame for frame in source.frames() if frame is not None]
    assert [frame.name for frame in frames] == source.names == ["scene-5", "scene-6", "scene-7"]
    np.testing.assert_array_equal(frames[1].image, draw_scene((64, 80), 6))
    assert len({frame.digest for frame in frames}) == 3
    (last,) = source.frames(2)
    assert last is not None
    assert last.digest == frames[2].digest

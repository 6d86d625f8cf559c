from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.data.pictures import PNG, SIZE, WRONG, encode, pixels
from zmask_export.data import images
from zmask_export.data.drawn import DrawnScenes
from zmask_export.data.images import ImageFolder
from zmask_export.data.sampling import spread
from zmask_export.data.scene import draw_scene
from zmask_export.errors import DatasetError, ImageError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good images in nested folders, of mixed sizes, and one hidden file."""
    root = tmp_path / "images"
    for index, name in enumerate(("b.png", "a/z.jpg", "a/c/d.png", "c.PNG", "a.bmp")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (24 + 4 * index, 32)
        Image.fromarray(pixels(index, size)).save(path)
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
    (folder / "panorama.png").write_bytes(encode(Image.new("RGB", (400, 20))))
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
    picked = spread(paths, limit)
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


def test_a_changed_file_makes_another_version(folder: Path) -> None:
    before = ImageFolder(folder, SIZE)
    assert ImageFolder(folder, SIZE).version == before.version
    path = before.paths[0]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    touched = ImageFolder(folder, SIZE)
    assert (touched.names, touched.version != before.version) == (before.names, True)
    path.write_bytes(path.read_bytes() + b" ")
    assert ImageFolder(folder, SIZE).version not in (before.version, touched.version)

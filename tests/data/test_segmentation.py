from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from zmask_export.data.segmentation import (
    CAMVID_CLASSES,
    CITYSCAPES_CLASSES,
    IGNORE,
    SegmentationFolder,
)
from zmask_export.errors import DatasetError, ImageError, UsageError

SIZE = (24, 32)


def _picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _labels(path: Path, values: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _ramp(low: int = 0, high: int = 12) -> NDArray[np.uint8]:
    """Label maps with every value of a range somewhere."""
    count = SIZE[0] * SIZE[1]
    return (low + np.arange(count) % (high - low)).astype(np.uint8).reshape(SIZE)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    for index in range(5):
        _picture(tmp_path / "val" / "images" / f"{index}.png", index)
        _labels(tmp_path / "val" / "labels" / f"{index}.png", _ramp())
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    for city, stem in (("ulm", "ulm_1"), ("bonn", "bonn_2")):
        _picture(tmp_path / "leftImg8bit" / "val" / city / f"{stem}_leftImg8bit.png")
        folder = tmp_path / "gtFine" / "val" / city
        _labels(folder / f"{stem}_gtFine_labelTrainIds.png", _ramp(0, 19))
        _labels(folder / f"{stem}_gtFine_labelIds.png", _ramp(0, 34))
    return tmp_path


def test_camvid_is_read_and_its_unlabelled_pixels_are_ignored(camvid: Path) -> None:
    folder = SegmentationFolder(camvid, "val")
    assert folder.classes == CAMVID_CLASSES
    assert len(folder) == len(list(folder)) == 5
    sample = folder[2]
    assert sample.path.name == "2.png"
    assert sample.image.shape == (*SIZE, 3)
    expected = _ramp()
    expected[expected == 11] = IGNORE
    np.testing.assert_array_equal(sample.labels, expected)
    assert sample.labels.dtype == np.uint8


def test_a_jpeg_meets_the_label_map_of_its_stem(camvid: Path) -> None:
    Image.open(camvid / "val/images/0.png").save(camvid / "val/images/0.jpg")
    (camvid / "val/images/0.png").unlink()
    pairs = SegmentationFolder(camvid, "val").pairs
    assert (pairs[0][0].name, pairs[0][1].name) == ("0.jpg", "0.png")


def test_cityscapes_is_read_over_its_cities(cityscapes: Path) -> None:
    folder = SegmentationFolder(cityscapes, "val")
    assert folder.classes == CITYSCAPES_CLASSES
    assert [path.parent.name for path, _ in folder.pairs] == ["bonn", "ulm"]
    np.testing.assert_array_equal(folder[0].labels, _ramp(0, 19))


def test_label_ids_become_train_ids(cityscapes: Path) -> None:
    for path in cityscapes.rglob("*_labelTrainIds.png"):
        path.unlink()
    labels = SegmentationFolder(cityscapes, "val")[0].labels
    raw = _ramp(0, 34)
    # Ids of the data set's public label table.
    by_name = {"road": 7, "building": 11, "sky": 23, "person": 24, "car": 26, "bicycle": 33}
    for name, label in by_name.items():
        assert (labels[raw == label] == CITYSCAPES_CLASSES.index(name)).all()
    for unlabelled in (0, 4, 9, 10, 14, 18, 29, 30):
        assert (labels[raw == unlabelled] == IGNORE).all()
    assert set(np.unique(labels)) == {*range(19), IGNORE}


def test_a_missing_label_map_is_named(camvid: Path) -> None:
    (camvid / "val/labels/3.png").unlink()
    with pytest.raises(DatasetError, match=r"images/3\.png has no label map"):
        SegmentationFolder(camvid, "val")


def test_a_missing_cityscapes_label_map_is_named(cityscapes: Path) -> None:
    for path in cityscapes.rglob("ulm_1_gtFine*"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"ulm_1_leftImg8bit\.png has no label map"):
        SegmentationFolder(cityscapes, "val")


@pytest.mark.parametrize("split", ["test", "val/images"])
def test_another_layout_is_refused(camvid: Path, split: str) -> None:
    with pytest.raises(DatasetError, match="neither CamVid's layout"):
        SegmentationFolder(camvid, split)


def test_a_split_that_cityscapes_lacks_is_refused(cityscapes: Path) -> None:
    with pytest.raises(DatasetError, match="test"):
        SegmentationFolder(cityscapes, "test")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "1"])
def test_label_maps_of_another_mode_are_refused(camvid: Path, mode: str) -> None:
    Image.new(mode, (SIZE[1], SIZE[0])).save(camvid / "val/labels/0.png")
    with pytest.raises(DatasetError, match=r"labels/0\.png has mode"):
        SegmentationFolder(camvid, "val")[0]


def test_palette_label_maps_hold_their_indices(camvid: Path) -> None:
    image = Image.fromarray(_ramp(0, 11))
    image.putpalette([255 - value // 3 for value in range(768)])
    assert image.mode == "P"
    image.save(camvid / "val/labels/0.png")
    np.testing.assert_array_equal(SegmentationFolder(camvid, "val")[0].labels, _ramp(0, 11))


@pytest.mark.parametrize("label", [12, 31, 254])
def test_a_label_of_another_encoding_is_named(camvid: Path, label: int) -> None:
    _labels(camvid / "val/labels/0.png", np.full(SIZE, label, np.uint8))
    with pytest.raises(DatasetError, match=rf"labels/0\.png holds the label {label}"):
        SegmentationFolder(camvid, "val")[0]


@pytest.mark.parametrize(("ending", "label"), [("labelTrainIds", 19), ("labelIds", 34)])
def test_a_label_that_cityscapes_lacks_is_named(cityscapes: Path, ending: str, label: int) -> None:
    if ending == "labelIds":
        for path in cityscapes.rglob("*_labelTrainIds.png"):
            path.unlink()
    _labels(next(cityscapes.rglob(f"bonn*{ending}.png")), np.full(SIZE, label, np.uint8))
    with pytest.raises(DatasetError, match=f"holds the label {label}"):
        SegmentationFolder(cityscapes, "val")[0]


@pytest.mark.parametrize("data", [b"", b"text", None])
def test_a_damaged_label_map_is_named(camvid: Path, data: bytes | None) -> None:
    path = camvid / "val/labels/0.png"
    path.write_bytes(path.read_bytes()[:-60] if data is None else data)
    with pytest.raises(DatasetError, match=r"labels/0\.png cannot be read"):
        SegmentationFolder(camvid, "val")[0]


# Pillow only warns above its bound, and refuses above twice as much.
@pytest.mark.parametrize("most", [SIZE[0] * SIZE[1] // 3, SIZE[0] * SIZE[1] - 1])
def test_an_enormous_label_map_is_refused(
    most: int, camvid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    folder = SegmentationFolder(camvid, "val")
    _picture(folder.pairs[0][0], size=(16, 16))
    with pytest.raises(DatasetError, match="cannot be read"):
        folder[0]


def test_sizes_that_differ_are_named(camvid: Path) -> None:
    _labels(camvid / "val/labels/1.png", _ramp()[:, :-1])
    with pytest.raises(DatasetError, match=r"1\.png is 31 x 24 and its image 32 x 24"):
        SegmentationFolder(camvid, "val")[1]


def test_a_grey_image_is_refused(camvid: Path) -> None:
    Image.new("L", (32, 24)).save(camvid / "val/images/0.png")
    with pytest.raises(ImageError, match="grey"):
        SegmentationFolder(camvid, "val")[0]


@pytest.mark.parametrize("size", [(12, 16), (48, 64), (18, 30)])
def test_labels_are_resized_by_nearest_neighbour(camvid: Path, size: tuple[int, int]) -> None:
    left_right = np.zeros(SIZE, np.uint8)
    left_right[:, 16:] = 9
    _labels(camvid / "val/labels/0.png", left_right)
    sample = SegmentationFolder(camvid, "val", size=size)[0]
    assert sample.image.shape == (*size, 3)
    assert sample.labels.shape == size
    assert set(np.unique(sample.labels)) == {0, 9}
    columns = ((np.arange(size[1]) + 0.5) * SIZE[1] / size[1]).astype(int)
    np.testing.assert_array_equal(sample.labels, np.tile(left_right[0, columns], (size[0], 1)))


def test_a_limit_is_spread_over_the_split(camvid: Path) -> None:
    folder = SegmentationFolder(camvid, "val", limit=3)
    assert [path.name for path, _ in folder.pairs] == ["0.png", "2.png", "4.png"]
    with pytest.raises(UsageError):
        SegmentationFolder(camvid, "val", limit=0)

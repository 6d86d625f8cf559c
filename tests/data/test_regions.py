from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from zmask_export.data.regions import MIN_AREA, OBJECTS, RegionFolder, find_boxes, sides
from zmask_export.data.segmentation import CAMVID_CLASSES, CITYSCAPES_CLASSES
from zmask_export.errors import DatasetError, ShapeError, UsageError

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"
SIZE = (40, 60)
ROAD, CAR, PEDESTRIAN, BICYCLIST = (
    CAMVID_CLASSES.index(name) for name in ("road", "car", "pedestrian", "bicyclist")
)


def _paint(*boxes: tuple[int, int, int, int, int], ground: int = ROAD) -> NDArray[np.uint8]:
    """A label map with filled rectangles: class, x1 y1 x2 y2."""
    labels = np.full(SIZE, ground, np.uint8)
    for index, x1, y1, x2, y2 in boxes:
        labels[y1:y2, x1:x2] = index
    return labels


def _camvid(root: Path, *maps: NDArray[np.uint8]) -> Path:
    for index, labels in enumerate(maps):
        _save(root / "val", f"{index}.png", f"{index}.png", labels, "images", "labels")
    return root


def _save(
    root: Path, image: str, name: str, labels: NDArray[np.uint8], images: str, maps: str
) -> None:
    for folder in (images, maps):
        (root / folder).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / images / image)
    Image.fromarray(labels).save(root / maps / name)


def test_every_region_gets_the_box_around_its_pixels() -> None:
    labels = _paint((CAR, 2, 3, 12, 9), (CAR, 50, 30, 60, 40), (PEDESTRIAN, 20, 0, 23, 14))
    boxes, found = find_boxes(labels, {CAR: 1, PEDESTRIAN: 2})
    assert boxes.tolist() == [[2, 3, 12, 9], [50, 30, 60, 40], [20, 0, 23, 14]]
    assert found.tolist() == [1, 1, 2]
    assert (boxes.dtype, found.dtype) == (np.float32, np.int64)
    assert sides(boxes) == pytest.approx(np.sqrt([60, 100, 42]))


def test_regions_that_touch_at_a_corner_are_one() -> None:
    boxes, _ = find_boxes(_paint((CAR, 2, 3, 12, 9), (CAR, 12, 9, 20, 15)), {CAR: 1})
    assert boxes.tolist() == [[2, 3, 20, 15]]


def test_an_object_that_another_class_cuts_in_two_is_two() -> None:
    labels = _paint((CAR, 2, 3, 32, 13), (CAMVID_CLASSES.index("pole"), 15, 0, 17, 40))
    assert find_boxes(labels, {CAR: 1})[0].tolist() == [[2, 3, 15, 13], [17, 3, 32, 13]]


def test_classes_that_share_a_label_stay_apart() -> None:
    boxes, found = find_boxes(_paint((8, 0, 0, 10, 10), (9, 10, 0, 20, 10)), {8: 4, 9: 4})
    assert (boxes.tolist(), found.tolist()) == ([[0, 0, 10, 10], [10, 0, 20, 10]], [4, 4])


def test_specks_are_no_objects() -> None:
    largest = (CAR, 0, 0, MIN_AREA - 1, 1)
    assert find_boxes(_paint(largest), {CAR: 1})[0].shape == (0, 4)
    assert len(find_boxes(_paint((CAR, 0, 0, MIN_AREA, 1)), {CAR: 1})[0]) == 1


@pytest.mark.parametrize("shape", [(12,), (3, 4, 5)])
def test_what_is_no_label_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="label map"):
        find_boxes(np.zeros(shape, np.uint8), {CAR: 1})


def _flood(labels: NDArray[np.uint8], index: int) -> list[tuple[int, int, int, int]]:
    """Boxes of regions of at least :data:`MIN_AREA` pixels, found pixel by pixel."""
    left = set(zip(*np.nonzero(labels == index), strict=True))
    boxes = []
    while left:
        stack = [left.pop()]
        region = list(stack)
        while stack:
            y, x = stack.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            stack += near
            region += near
        if len(region) >= MIN_AREA:
            ys, xs = zip(*region, strict=True)
            boxes.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    return sorted(boxes)


@given(labels=arrays(np.uint8, (13, 17), elements=st.sampled_from([3, 8, 8, 9])))
def test_regions_are_those_of_a_flood_fill(labels: NDArray[np.uint8]) -> None:
    boxes, found = find_boxes(labels, {8: 1, 9: 2})
    for index, label in ((8, 1), (9, 2)):
        assert sorted(map(tuple, boxes[found == label])) == _flood(labels, index)


@given(labels=arrays(np.uint8, (13, 17), elements=st.sampled_from([3, 8, 8, 9])))
def test_a_mirrored_map_has_mirrored_boxes(labels: NDArray[np.uint8]) -> None:
    boxes, _ = find_boxes(labels, {8: 1})
    mirrored, _ = find_boxes(labels[:, ::-1], {8: 1})
    back = np.stack([17 - mirrored[:, 2], mirrored[:, 1], 17 - mirrored[:, 0], mirrored[:, 3]], 1)
    assert sorted(map(tuple, boxes)) == sorted(map(tuple, back))


def test_a_camvid_split_comes_with_boxes(tmp_path: Path) -> None:
    objects = ((CAR, 0, 0, 32, 20), (PEDESTRIAN, 40, 2, 48, 33), (BICYCLIST, 50, 2, 58, 34))
    folder = RegionFolder(_camvid(tmp_path, _paint(*objects), _paint(ground=11)), "val")
    assert folder.categories == OBJECTS == {1: "car", 2: "pedestrian", 3: "bicyclist"}
    assert [path.name for path in folder.paths] == ["0.png", "1.png"]
    first, second = folder
    assert first.path == folder.paths[0]
    assert first.image.shape == (*SIZE, 3)
    assert first.boxes.tolist() == [list(box[1:]) for box in objects]
    assert first.labels.tolist() == [1, 2, 3]
    assert first.crowd.tolist() == [
        False,
        True,
        False,
    ]  # 8 x 31 is smaller than 16 x 16, 8 x 32 not
    assert first.patches.shape == second.patches.shape == second.boxes.shape == (0, 4)
    assert (len(second.labels), len(second.crowd)) == (0, 0)


@pytest.mark.parametrize("form", ["labelTrainIds", "labelIds"])
def test_cityscapes_people_and_riders_are_pedestrians_and_bicyclists(
    tmp_path: Path, form: str
) -> None:
    names = ("car", "person", "rider", "truck", "bicycle")
    ids = dict(zip(names, (26, 24, 25, 27, 33), strict=True))
    values = [ids[n] if form == "labelIds" else CITYSCAPES_CLASSES.index(n) for n in names]
    ground = 7 if form == "labelIds" else 0
    labels = _paint(*((v, 10 * i, 0, 10 * i + 5, 9) for i, v in enumerate(values)), ground=ground)
    image, name = "ulm_1_leftImg8bit.png", f"ulm_1_gtFine_{form}.png"
    _save(tmp_path, image, name, labels, "leftImg8bit/val/ulm", "gtFine/val/ulm")
    (sample,) = RegionFolder(tmp_path, "val")
    assert sample.boxes.tolist() == [[0, 0, 5, 9], [10, 0, 15, 9], [20, 0, 25, 9]]
    assert sample.labels.tolist() == [1, 2, 3]


def test_boxes_fit_the_size_that_images_are_resized_to(tmp_path: Path) -> None:
    root = _camvid(tmp_path, _paint((CAR, 10, 10, 20, 20), (CAR, 40, 10, 55, 30)))
    (sample,) = RegionFolder(root, "val", size=(80, 90))
    assert sample.image.shape == (80, 90, 3)
    assert sample.boxes.tolist() == [[15, 20, 30, 40], [60, 20, 83, 60]]
    assert sample.crowd.tolist() == [False, False]


def test_a_part_of_a_split_is_spread_over_it(tmp_path: Path) -> None:
    root = _camvid(tmp_path, *[_paint()] * 5)
    folder = RegionFolder(root, "val", limit=3)
    assert [path.name for path in folder.paths] == ["0.png", "2.png", "4.png"]
    assert len(folder) == len(list(folder)) == 3
    with pytest.raises(UsageError):
        RegionFolder(root, "val", limit=0)


def test_an_image_without_label_map_is_named(tmp_path: Path) -> None:
    root = _camvid(tmp_path, _paint(), _paint())
    (root / "val" / "labels" / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png"):
        RegionFolder(root, "val")


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs CamVid beside the repository")
def test_camvid_val_has_these_objects() -> None:
    samples = list(RegionFolder(CAMVID, "val"))
    counted = np.concatenate([sample.labels[~sample.crowd] for sample in samples])
    assert np.bincount(counted).tolist() == [0, 142, 143, 199]
    boxes = np.concatenate([sample.boxes for sample in samples])
    crowd = np.concatenate([sample.crowd for sample in samples])
    assert boxes.min() >= 0
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes.max(0) <= [480, 360, 480, 360]).all()
    np.testing.assert_array_equal(crowd, sides(boxes) < 16)

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.box_trees import (
    BOXES,
    CAR,
    PATCH,
    PERSON,
    SIZE,
    content,
    make_apricot,
    make_coco,
    name_of,
    save_json,
)
from zmask_export.data import coco
from zmask_export.data.apricot import ApricotFolder
from zmask_export.data.coco import CocoFolder
from zmask_export.errors import DatasetError, ImageError, UsageError

FILE = Path("annotations/instances_val2017.json")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "coco")


def test_coco_gives_images_in_the_order_of_their_ids(root: Path) -> None:
    folder = CocoFolder(root, "val2017")
    assert len(folder) == 4
    assert [sample.path for sample in folder] == [
        root / "val2017" / name_of(image) for image in (7, 9, 42, 300)
    ]
    assert list(folder.categories.items()) == [(PERSON, "person"), (CAR, "car")]


def test_a_sample_has_corners_labels_and_crowd_marks(root: Path) -> None:
    sample = CocoFolder(root, "val2017")[2]
    expected = np.random.default_rng(42).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    assert np.abs(sample.image.mean() - expected.mean()) < 2
    np.testing.assert_array_equal(sample.boxes, [[1, 2, 11, 6], [3.5, 0.25, 23.5, 12.75]])
    assert sample.labels.tolist() == [PERSON, CAR]
    assert sample.crowd.tolist() == [False, True]
    kinds = (sample.image, sample.boxes, sample.labels, sample.crowd, sample.patches)
    assert [str(array.dtype) for array in kinds] == ["uint8", "float32", "int64", "bool", "float32"]
    assert sample.patches.shape == (0, 4)


def test_an_image_without_boxes_is_kept(root: Path) -> None:
    sample = CocoFolder(root, "val2017")[0]
    assert (sample.boxes.shape, sample.labels.shape, sample.crowd.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([-5, -5, 10, 10], [0, 0, 5, 5]),
        ([30, 20, 10, 10], [30, 20, 32, 24]),
        ([31.75, 0, 1, 1], [31.75, 0, 32, 1]),
        ([4, 4, 0, 5], None),
        ([4, 4, 5, 0], None),
        ([4, 4, -3, 5], None),
        ([32, 4, 5, 5], None),
        ([-9, 4, 9, 5], None),
    ],
)
def test_boxes_are_clipped_and_empty_ones_left_out(
    tmp_path: Path, box: list[float], expected: list[float] | None
) -> None:
    boxes = BOXES | {9: [(PERSON, box, 1), (CAR, [1, 1, 2, 2], 0)]}
    sample = CocoFolder(make_coco(tmp_path, content(boxes)), "val2017")[1]
    assert sample.boxes.tolist() == ([] if expected is None else [expected]) + [[1, 1, 3, 3]]
    assert sample.labels.tolist() == ([] if expected is None else [PERSON]) + [CAR]
    assert sample.crowd.tolist() == ([] if expected is None else [True]) + [False]


def test_a_limit_is_spread_over_the_split(root: Path) -> None:
    assert [path.name for path in CocoFolder(root, "val2017", limit=2).paths] == [
        name_of(7), name_of(300),
    ]  # fmt: skip
    with pytest.raises(UsageError):
        CocoFolder(root, "val2017", limit=0)


def test_a_limit_needs_its_own_images_only(root: Path) -> None:
    (root / "val2017" / name_of(9)).unlink()
    assert len(list(CocoFolder(root, "val2017", limit=2))) == 2
    with pytest.raises(DatasetError, match=r"000000000009\.jpg is missing"):
        CocoFolder(root, "val2017")


def test_an_image_without_entry_is_named(root: Path) -> None:
    Image.new("RGB", (32, 24)).save(root / "val2017" / "stranger.png")
    (root / "val2017" / "readme.txt").write_text("no image")
    with pytest.raises(DatasetError, match=r"stranger\.png has no entry .* \(1 such"):
        CocoFolder(root, "val2017")


def test_a_missing_split_says_which_are_there(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"instances_train2017\.json are missing") as caught:
        CocoFolder(root, "train2017")
    assert "instances_val2017.json" in caught.value.fix


def test_an_image_of_another_size_is_named(root: Path) -> None:
    Image.new("RGB", (24, 32)).save(root / "val2017" / name_of(9))
    with pytest.raises(DatasetError, match=r"09\.jpg is 24 x 32, and 32 x 24 in the annotations"):
        CocoFolder(root, "val2017")[1]


def test_a_damaged_image_is_named(root: Path) -> None:
    (root / "val2017" / name_of(9)).write_bytes(b"text")
    with pytest.raises(ImageError, match=r"09\.jpg is not an image"):
        CocoFolder(root, "val2017")[1]


def _without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for key in keys:
            del record[key]

    return change


def _set(part: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        record[part][0][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("images"), "images: Field required"),
        (_without("annotations"), "annotations: Field required"),
        (_without("categories"), "categories: Field required"),
        (_set("annotations", "bbox", [1, 2, 3]), r"annotations\.0\.bbox"),
        (_set("annotations", "bbox", [1, 2, 3, float("nan")]), r"bbox\.3.*finite"),
        (_set("annotations", "bbox", [1, 2, 3, 1e300]), r"bbox\.3"),
        (_set("annotations", "bbox", [1, 2, 3, "4"]), r"bbox\.3"),
        (_set("annotations", "iscrowd", 2), "iscrowd"),
        (_set("annotations", "image_id", 43), "for the image 43, which the file does not list"),
        (_set("annotations", "category_id", 2), "for the category 2, which the file does not"),
        (_set("annotations", "category_id", -1), "category_id"),
        (_set("annotations", "category_id", 1 << 63), "category_id"),
        (_set("annotations", "id", 1001), "lists the annotation 1001 twice"),
        (_set("categories", "id", 1), "lists the category 1 twice"),
        (_set("images", "id", 7), "lists the image 7 twice"),
        (_set("images", "file_name", name_of(7)), "lists an image file twice"),
        (_set("images", "file_name", f"./{name_of(7)}"), "lists an image file twice"),
        (_set("images", "file_name", "../secret.jpg"), "secret.jpg', which is not inside"),
        (_set("images", "file_name", "/etc/passwd"), "is not inside"),
        (_set("images", "file_name", ""), "file_name"),
        (_set("images", "file_name", "a" * 5000), "has no entry"),
        (_set("images", "height", 0), "height"),
    ],
)
def test_wrong_annotations_are_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    record = json.loads(json.dumps(content()))
    change(record)
    with pytest.raises(DatasetError, match=message) as caught:
        CocoFolder(make_coco(tmp_path, record), "val2017")
    assert caught.value.fix


@pytest.mark.parametrize("name", ["a" * 5000, "nul\0byte.jpg"])
def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path, name: str) -> None:
    boxes = content(BOXES | {1: []})
    boxes["images"][-1]["file_name"] = name
    with pytest.raises(DatasetError, match="is missing"):
        CocoFolder(make_coco(tmp_path, boxes), "val2017")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"images": ' + b"[" * 100_000]
)
def test_a_file_that_is_no_annotation_file_is_refused(root: Path, data: bytes) -> None:
    (root / FILE).write_bytes(data)
    with pytest.raises(DatasetError, match=r"instances_val2017\.json is no annotation file"):
        CocoFolder(root, "val2017")


def test_an_enormous_file_is_refused_unread(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (root / FILE).open("r+b") as file:
        file.truncate(coco.MAX_BYTES + 1)  # sparse
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(DatasetError, match="more than 1024 MiB"):
        CocoFolder(root, "val2017")


def test_a_folder_in_place_of_the_file_is_refused(root: Path) -> None:
    (root / FILE).unlink()
    (root / FILE).mkdir()
    with pytest.raises(DatasetError, match="cannot be read"):
        CocoFolder(root, "val2017")


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_gives_a_folder_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.getbasetemp() / "damaged"
    if not root.exists():
        make_coco(root)
    text = bytearray(json.dumps(content()).encode())
    start = data.draw(st.integers(0, len(text)))
    text[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=12))
    (root / FILE).write_bytes(bytes(text))
    try:
        for sample in CocoFolder(root, "val2017"):
            assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
    except DatasetError:
        pass


def test_apricot_keeps_patches_apart(tmp_path: Path) -> None:
    folder = ApricotFolder(make_apricot(tmp_path), "dev")
    first, second = folder
    assert PATCH not in folder.categories
    assert [path.parent.name for path in folder.paths] == ["dev", "dev"]
    assert first.labels.tolist() == second.labels.tolist() == [CAR]
    np.testing.assert_array_equal(first.patches, [[20, 10, 32, 24], [2, 3, 6, 8]])
    np.testing.assert_array_equal(second.patches, [[1, 2, 11, 6]])
    np.testing.assert_array_equal(second.boxes, [[3.5, 0.25, 23.5, 12.75]])


def test_apricot_without_its_patch_category_is_refused(tmp_path: Path) -> None:
    make_apricot(tmp_path)
    save_json(
        tmp_path / "Annotations" / "apricot_dev_all_annotations.json", content({42: [], 9: []})
    )
    with pytest.raises(DatasetError, match="has no category 12, which stands for patches"):
        ApricotFolder(tmp_path, "dev")


def test_apricot_has_no_split_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="apricot_train_all") as caught:
        ApricotFolder(make_apricot(tmp_path), "train")
    assert "apricot_dev_all_annotations.json" in caught.value.fix

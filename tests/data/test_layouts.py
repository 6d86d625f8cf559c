from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.box_trees import make_apricot, make_coco
from tests.drawn import save_scene
from zmask_export.data.apricot import ApricotFolder
from zmask_export.data.coco import CocoFolder
from zmask_export.data.layouts import ResizedBoxes, open_boxes, open_segmentation, recognise
from zmask_export.data.regions import RegionFolder
from zmask_export.data.segmentation import CAMVID_CLASSES, CITYSCAPES_CLASSES
from zmask_export.errors import DatasetError, ImageError

SIZE = (64, 80)


def _labels(path: Path) -> None:
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(path)


def make_camvid(root: Path) -> Path:
    save_scene(root / "val" / "images" / "0.png", 0, SIZE)
    _labels(root / "val" / "labels" / "0.png")
    return root


def make_cityscapes(root: Path) -> Path:
    save_scene(root / "leftImg8bit" / "val" / "ulm" / "ulm_1_leftImg8bit.png", 0, SIZE)
    _labels(root / "gtFine" / "val" / "ulm" / "ulm_1_gtFine_labelTrainIds.png")
    return root


TREES = {
    "CamVid": make_camvid,
    "Cityscapes": make_cityscapes,
    "COCO": make_coco,
    "APRICOT": make_apricot,
}


@pytest.mark.parametrize("layout", TREES)
def test_every_layout_is_recognised(tmp_path: Path, layout: str) -> None:
    assert recognise(TREES[layout](tmp_path)) == layout


@pytest.mark.parametrize(
    ("layout", "classes"), [("CamVid", CAMVID_CLASSES), ("Cityscapes", CITYSCAPES_CLASSES)]
)
def test_label_maps_open(tmp_path: Path, layout: str, classes: tuple[str, ...]) -> None:
    folder = open_segmentation(TREES[layout](tmp_path), "val", size=(12, 16), limit=1)
    assert folder.classes == classes
    assert [sample.labels.shape for sample in folder] == [(12, 16)]


def test_boxes_open(tmp_path: Path) -> None:
    coco = open_boxes(make_coco(tmp_path / "coco"), "val2017", limit=1)
    apricot = open_boxes(make_apricot(tmp_path / "apricot"), "dev")
    assert (type(coco), len(coco)) == (CocoFolder, 1)
    assert (type(apricot), len(apricot)) == (ApricotFolder, 2)


@pytest.mark.parametrize("layout", ["CamVid", "Cityscapes"])
def test_label_maps_open_as_boxes(tmp_path: Path, layout: str) -> None:
    folder = open_boxes(TREES[layout](tmp_path), "val", size=(32, 40), limit=1)
    assert (type(folder), len(folder)) == (RegionFolder, 1)
    assert [sample.image.shape for sample in folder] == [(32, 40, 3)]


def test_boxes_are_stretched_with_their_images(tmp_path: Path) -> None:
    """Image 42 is 32 x 24; a patch of it lies at 1 2 10 4 and one has no width."""
    root = make_apricot(tmp_path)
    plain, resized = open_boxes(root, "dev"), open_boxes(root, "dev", size=(48, 96))
    assert (type(plain), type(resized)) == (ApricotFolder, ResizedBoxes)
    assert (resized.categories, resized.paths) == (plain.categories, plain.paths)
    assert len(resized) == len(list(resized)) == len(plain) == 2
    before, after = plain[1], resized[1]
    assert after.path == before.path
    assert after.image.shape == (48, 96, 3)
    assert after.boxes.dtype == np.float32
    np.testing.assert_array_equal(after.boxes, before.boxes * [3, 2, 3, 2])
    assert after.patches.tolist() == [[3, 4, 33, 12]]
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.crowd, before.crowd)


def test_boxes_of_an_image_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = open_boxes(make_coco(tmp_path), "val2017", size=(100, 32))
    with pytest.raises(ImageError, match="too far from the network's input"):
        folder[0]


@pytest.mark.parametrize("layout", ["COCO", "APRICOT"])
def test_boxes_are_no_label_maps(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DatasetError, match=f"{layout}'s layout, which has no label maps") as caught:
        open_segmentation(TREES[layout](tmp_path), "val")
    assert "CamVid: <split>/images" in caught.value.fix
    assert "Cityscapes: leftImg8bit/<split>" in caught.value.fix


@pytest.mark.parametrize("opener", [open_segmentation, open_boxes])
def test_what_is_no_data_set_is_refused(tmp_path: Path, opener: type) -> None:
    save_scene(tmp_path / "0.png", 0, SIZE)
    with pytest.raises(DatasetError, match="is in no known layout"):
        opener(tmp_path, "val")
    for path in (tmp_path / "none", tmp_path / "0.png"):
        assert recognise(path) is None
        with pytest.raises(DatasetError, match="is no folder") as caught:
            opener(path, "val")
        assert "Cityscapes: leftImg8bit/<split>" in caught.value.fix
        assert ("APRICOT: Annotations" in caught.value.fix) is (opener is open_boxes)

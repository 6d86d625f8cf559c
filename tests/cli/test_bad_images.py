"""Images that cannot be used: exit code 4, by the verbs that read them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Inputs, assert_refused, contents, zmask
from tests.drawn import SIZE, save_scene
from zmask_export.data.scene import draw_scene


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _scene(mode: str = "RGB", kind: str = "PNG") -> bytes:
    return _encoded(Image.fromarray(draw_scene(SIZE, 1)).convert(mode), kind)


def _floats(value: float) -> bytes:
    array = np.full(SIZE, 0.5, np.float32)
    array[0, 0] = value
    return _encoded(Image.fromarray(array), "TIFF")


def _png16() -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    h, w = SIZE
    rows = (b"\0" + b"\x12\x34" * (3 * w)) * h
    header = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _blank(height: int, width: int) -> bytes:
    return _encoded(Image.new("RGB", (width, height), (90, 80, 70)), "PNG")


BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "no image": ("notes.txt", lambda: b"shopping list", "is not an image"),
    "text called an image": ("a.png", lambda: b"shopping list", "is not an image"),
    "an empty file": ("a.png", lambda: b"", "is not an image"),
    "a truncated JPEG": ("a.jpg", lambda: _scene(kind="JPEG")[:1500], "damaged or cut short"),
    "a truncated PNG": ("a.png", lambda: _scene()[:5000], "damaged or cut short"),
    "a grey image": ("a.png", lambda: _scene("L"), "a grey image"),
    "an RGBA image": ("a.png", lambda: _scene("RGBA"), "an RGBA image"),
    "a palette image": ("a.png", lambda: _scene("P"), "a palette image"),
    "a CMYK image": ("a.jpg", lambda: _scene("CMYK", "JPEG"), "a CMYK image"),
    "a grey 16-bit image": ("a.png", lambda: _scene("I;16"), "16-bit"),
    "an RGB 16-bit image": ("a.png", _png16, "16 bits a channel"),
    "a pixel": ("a.png", lambda: _blank(1, 1), "only 1 x 1 pixels"),
    "NaN": ("a.tiff", lambda: _floats(float("nan")), "a floating-point image"),
    "a shape that fits no network": ("a.png", lambda: _blank(64, 640), "640 x 64"),
}


@pytest.fixture
def folder(inputs: Inputs, tmp_path: Path) -> Path:
    """A folder with one good image."""
    save_scene(tmp_path / "images" / "0.png", 0)
    return tmp_path / "images"


@pytest.mark.parametrize("case", BAD)
def test_calibrate_refuses(case: str, inputs: Inputs, folder: Path, out: Path) -> None:
    name, make, word = BAD[case]
    (folder / name).write_bytes(make())
    outcome = zmask("calibrate", *inputs.random, "--images", folder, "--out", out)
    assert_refused(outcome, 4, word, name)
    assert contents(out.parent) == []


@pytest.mark.parametrize("case", BAD)
def test_run_refuses(case: str, bundle: Path, tmp_path: Path, out: Path) -> None:
    name, make, word = BAD[case]
    (tmp_path / name).write_bytes(make())
    outcome = zmask("run", bundle, tmp_path / name, "--out", out)
    assert_refused(outcome, 4, word, name)
    assert contents(out.parent) == []


def test_build_fit_and_verify_refuse_too(
    inputs: Inputs, folder: Path, bundle: Path, calibration: Path, out: Path
) -> None:
    (folder / "grey.png").write_bytes(_scene("L"))
    images, patch = ("--images", folder), ("--patch", inputs.patch)
    fit = ("fit", *inputs.random, "--calibration", calibration, *images, *patch, "--out", out)
    for arguments in (
        ("build", *inputs.random, *images, *patch, "--out", out),
        fit,
        ("verify", bundle, *inputs.random, *images, "--count", "9"),
    ):
        assert_refused(zmask(*arguments), 4, "grey.png", "a grey image")
    assert contents(out.parent) == []


@pytest.mark.parametrize("verb", ["calibrate", "build", "fit", "verify", "run"])
def test_a_folder_without_images(
    verb: str, inputs: Inputs, bundle: Path, calibration: Path, tmp_path: Path, out: Path
) -> None:
    empty = tmp_path / "empty"
    (empty / "nested").mkdir(parents=True)
    arguments: dict[str, tuple[object, ...]] = {
        "calibrate": (*inputs.random, "--images", empty, "--out", out),
        "build": (*inputs.random, "--images", empty, "--out", out),
        "fit": (
            *inputs.random, "--calibration", calibration, "--images", empty,
            "--patch", inputs.patch, "--out", out,
        ),
        "verify": (bundle, *inputs.random, "--images", empty),
        "run": (bundle, empty, "--out", out),
    }  # fmt: skip
    assert_refused(zmask(verb, *arguments[verb]), 4, "holds no image")
    assert contents(out.parent) == []


def test_a_folder_that_does_not_exist(inputs: Inputs, tmp_path: Path, out: Path) -> None:
    outcome = zmask("calibrate", *inputs.random, "--images", tmp_path / "nosuch", "--out", out)
    assert_refused(outcome, 4, "is not a folder")


def test_an_image_that_does_not_exist(bundle: Path, tmp_path: Path, out: Path) -> None:
    assert_refused(zmask("run", bundle, tmp_path / "nosuch.png", "--out", out), 4, "cannot be read")
    assert contents(out.parent) == []


def test_a_folder_of_bad_images_only(inputs: Inputs, tmp_path: Path, out: Path) -> None:
    (tmp_path / "grey").mkdir()
    (tmp_path / "grey" / "a.png").write_bytes(_scene("L"))
    outcome = zmask(
        "calibrate", *inputs.random, "--images", tmp_path / "grey", "--on-bad-image", "skip",
        "--out", out,
    )  # fmt: skip
    assert_refused(outcome, 4, "Not one of the images could be used")
    assert contents(out.parent) == []


def test_bad_images_are_left_out_where_asked(inputs: Inputs, folder: Path, out: Path) -> None:
    for case in ("a grey image", "a truncated JPEG", "no image"):
        name, make, _ = BAD[case]
        (folder / f"{case} {name}").write_bytes(make())
    options = ("--on-bad-image", "skip", "--json", "--out", out)
    outcome = zmask("calibrate", *inputs.random, "--images", folder, *options)
    assert outcome.code == 0
    assert outcome.record["images"] == 1
    assert outcome.err.count("left out: ") == 3


def test_colours_are_converted_where_asked(inputs: Inputs, folder: Path, out: Path) -> None:
    (folder / "grey.png").write_bytes(_scene("L"))
    (folder / "rgba.png").write_bytes(_scene("RGBA"))
    options = ("--on-bad-image", "convert", "--json", "--out", out)
    outcome = zmask("calibrate", *inputs.random, "--images", folder, *options)
    assert outcome.code == 0
    assert outcome.record["images"] == 3


def test_a_16_bit_image_is_not_converted(inputs: Inputs, folder: Path, out: Path) -> None:
    (folder / "deep.png").write_bytes(_png16())
    options = ("--on-bad-image", "convert", "--out", out)
    outcome = zmask("calibrate", *inputs.random, "--images", folder, *options)
    assert_refused(outcome, 4, "deep.png", "16 bits a channel")


PATCHES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no image": (lambda: b"shopping list", "is not an image"),
    "a grey image": (lambda: _scene("L"), "a grey image"),
    "larger than the image": (lambda: _blank(SIZE[0] + 1, SIZE[1]), "does not fit"),
}


@pytest.mark.parametrize("case", PATCHES)
@pytest.mark.parametrize("verb", ["fit", "build", "evaluate", "verify"])
def test_a_patch_that_cannot_be_used(
    case: str,
    verb: str,
    inputs: Inputs,
    bundle: Path,
    calibration: Path,
    tmp_path: Path,
    out: Path,
) -> None:
    make, word = PATCHES[case]
    patch = tmp_path / "patch.png"
    patch.write_bytes(make())
    images = ("--images", inputs.images)
    arguments: dict[str, tuple[object, ...]] = {
        "fit": (*inputs.random, "--calibration", calibration, *images, "--out", out),
        "build": (*inputs.random, *images, "--out", out),
        "evaluate": (bundle, "--data", inputs.camvid),
        "verify": (bundle, *inputs.random),
    }
    assert_refused(zmask(verb, *arguments[verb], "--patch", patch), 4, word)
    assert contents(out.parent) == []


def test_a_patch_that_does_not_exist(inputs: Inputs, tmp_path: Path, out: Path) -> None:
    outcome = zmask("build", *inputs.random, "--patch", tmp_path / "nosuch.png", "--out", out)
    assert_refused(outcome, 4, "nosuch.png")


def _no_layout(root: Path) -> None:
    (root / "train").rename(root / "other")


def _no_label(root: Path) -> None:
    (root / "train" / "labels" / "1.png").unlink()


def _colour_label(root: Path) -> None:
    (root / "train" / "labels" / "1.png").write_bytes(_scene())


def _small_label(root: Path) -> None:
    Image.new("L", (9, 9)).save(root / "train" / "labels" / "1.png")


def _cut_label(root: Path) -> None:
    path = root / "train" / "labels" / "1.png"
    path.write_bytes(path.read_bytes()[:60])


def _no_image(root: Path) -> None:
    for path in (root / "train" / "images").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (_no_layout, "neither CamVid's layout"),
        (_no_label, "has no label map"),
        (_colour_label, "not one class index a pixel"),
        (_small_label, "is 9 x 9"),
        (_cut_label, "cannot be read"),
        (_no_image, "holds no image"),
    ],
)
def test_a_data_set_that_cannot_be_used(
    spoil: Callable[[Path], None],
    word: str,
    inputs: Inputs,
    bundle: Path,
    tmp_path: Path,
    out: Path,
) -> None:
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for index in range(2):
        save_scene(root / "train" / "images" / f"{index}.png", index)
        (root / "train" / "labels").mkdir(exist_ok=True)
        labels = rng.integers(0, 12, SIZE, dtype=np.uint8)
        Image.fromarray(labels).save(root / "train" / "labels" / f"{index}.png")
    spoil(root)
    split = ("--data", root, "--split", "train")
    assert_refused(zmask("craft", *inputs.random, *split, "--out", out), 4, word)
    assert_refused(zmask("evaluate", bundle, *split, "--patch", inputs.patch), 4, word)
    assert contents(out.parent) == []


def test_a_data_set_of_other_classes(
    inputs: Inputs, bundle: Path, tmp_path: Path, out: Path
) -> None:
    name = "town_000000_000019"
    save_scene(tmp_path / "leftImg8bit" / "val" / "town" / f"{name}_leftImg8bit.png", 0)
    labels = tmp_path / "gtFine" / "val" / "town" / f"{name}_gtFine_labelTrainIds.png"
    labels.parent.mkdir(parents=True)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(labels)
    outcome = zmask("evaluate", bundle, "--data", tmp_path, "--patch", inputs.patch)
    assert_refused(outcome, 4, "19 classes", "11")
    assert contents(out.parent) == []

"""The readers of files that come from others: bytes in, and nothing but our errors may come out."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from PIL import Image

from zmask_export import presets
from zmask_export.artifacts import calibration, signature
from zmask_export.artifacts.bundle import is_bundle, read_manifest
from zmask_export.artifacts.manifest import FILE_NAME
from zmask_export.attack import palette, patch
from zmask_export.data import images
from zmask_export.data.coco import BoxFolder
from zmask_export.data.segmentation import SegmentationFolder
from zmask_export.drift.lines import OnBadLine, read_frames
from zmask_export.errors import ZMaskError
from zmask_export.evaluate.study import load_study
from zmask_export.foreign.onnx_file import read_onnx
from zmask_export.models.weights import read_state

Reader = Callable[[bytes, Path], object]
"""Takes a file's bytes, and an empty folder to lay them in."""

_SIDE = 16


def _calibration(data: bytes, folder: Path) -> None:
    calibration.load(_laid(data, folder / "calibration.safetensors"))


def _manifest(data: bytes, folder: Path) -> None:
    _laid(data, folder / FILE_NAME)
    is_bundle(folder)
    read_manifest(folder)


def _checkpoint(data: bytes, folder: Path) -> None:
    zipped = data.startswith((b"P", b"\x80"))
    read_state(_laid(data, folder / ("weights.pth" if zipped else "weights.safetensors")))


def _onnx(data: bytes, folder: Path) -> None:
    found = read_onnx(_laid(data, folder / "network.onnx"))
    found.maps((_SIDE, _SIDE))
    found.with_outputs(found.tensors)


def _image(data: bytes, folder: Path) -> None:
    path = _laid(data, folder / "image.png")
    _all(
        lambda: patch.info(path),
        lambda: images.read(path),
        lambda: images.read(path, convert=True),
    )


def _labels(data: bytes, folder: Path) -> None:
    split = folder / "train"
    for kind in ("images", "labels"):
        (split / kind).mkdir(parents=True, exist_ok=True)
    _laid(_PICTURE, split / "images" / "a.png")
    _laid(data, split / "labels" / "a.png")
    for _ in SegmentationFolder(folder, "train"):
        pass


def _coco(data: bytes, folder: Path) -> None:
    (folder / "images").mkdir(exist_ok=True)
    _laid(_PICTURE, folder / "images" / "a.png")
    for _ in BoxFolder(folder / "images", _laid(data, folder / "boxes.json")):
        pass


def _yaml(data: bytes, folder: Path) -> None:
    path = _laid(data, folder / "file.yaml")
    _all(lambda: load_study(path), lambda: presets.load_preset(path))


def _palette(data: bytes, folder: Path) -> None:
    palette.load(_laid(data, folder / "palette.txt"))


def _key(data: bytes, folder: Path) -> None:
    path = _laid(data, folder / "key")
    _all(lambda: signature.Signer(path), lambda: signature.key_bytes(path))


def _results(data: bytes, _folder: Path) -> None:
    for on_bad in get_args(OnBadLine):
        for _ in read_frames(io.BytesIO(data), "results", on_bad=on_bad):
            pass


READERS: dict[str, Reader] = {
    "calibration": _calibration,
    "manifest": _manifest,
    "checkpoint": _checkpoint,
    "onnx": _onnx,
    "image": _image,
    "labels": _labels,
    "coco": _coco,
    "yaml": _yaml,
    "palette": _palette,
    "key": _key,
    "results": _results,
}


def accepts(reader: str, data: bytes, folder: Path) -> bool:
    """Whether a reader takes the bytes; False where it refuses them with an error of ours.

    Any other exception is a find. Warnings of libraries are none, and are not printed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            READERS[reader](data, folder)
        except ZMaskError:
            return False
    return True


def _all(*calls: Callable[[], object]) -> None:
    """Make every call; the last one's refusal counts."""
    for call in calls[:-1]:
        with contextlib.suppress(ZMaskError):
            call()
    calls[-1]()


def _laid(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (_SIDE, _SIDE)).save(buffer, "PNG")
    return buffer.getvalue()


_PICTURE = _png()

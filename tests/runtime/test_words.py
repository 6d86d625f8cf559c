"""What is said to whoever hands the runtime what it cannot take: whole sentences, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmask_export
from tests.drawn import SIZE as BUNDLE_SIZE
from zmask_export.errors import BackendUnavailableError, ShapeError, UsageError, ZMaskError
from zmask_export.runtime.inputs import prepare

SIZE = (24, 32)
PICTURE = np.zeros((*SIZE, 3), np.uint8)
FLOATS = np.full((1, 3, *SIZE), 0.5, np.float32)
GIVE = "Give RGB images as uint8 (H, W, 3), or a float32 batch (N, 3, 24, 32) in [0, 1]."
SCALE = "Scale 8-bit images by 1/255 and check the camera's conversion."
EMPTY = "The batch is empty."
NO_VALUES = "The image holds NaN, infinity or values outside [0, 1], or is empty."


def _takes(got: str) -> str:
    return f"The engine takes uint8 (H, W, 3) or float32 (N, 3, 24, 32), got {got}."


IMAGES: dict[str, tuple[Any, str, str]] = {
    "no pictures": ([], EMPTY, GIVE),
    "a batch of no pictures": (np.stack([PICTURE])[:0], EMPTY, GIVE),
    "doubles": (FLOATS.astype(np.float64), _takes("float64 (1, 3, 24, 32)"), GIVE),
    "floats in the order of pictures": (
        np.zeros((*SIZE, 3), np.float32),
        _takes("float32 (24, 32, 3)"),
        GIVE,
    ),
    "floats of another height": (FLOATS[:, :, 1:], _takes("float32 (1, 3, 23, 32)"), GIVE),
    "one plane": (FLOATS[0, 0], _takes("float32 (24, 32)"), GIVE),
    "batches": (FLOATS[None], _takes("float32 (1, 1, 3, 24, 32)"), GIVE),
    "a grey picture": (PICTURE[..., 0], _takes("uint8 (24, 32)"), GIVE),
    "a picture with alpha": (np.zeros((*SIZE, 4), np.uint8), _takes("uint8 (24, 32, 4)"), GIVE),
    "a picture without rows": (PICTURE[:0], _takes("uint8 (0, 32, 3)"), GIVE),
    "bytes in the order of floats": (
        np.zeros((1, 3, *SIZE), np.uint8),
        _takes("uint8 (3, 24, 32)"),
        GIVE,
    ),
    "a list with a grey picture": ([PICTURE, PICTURE[..., 0]], _takes("uint8 (24, 32)"), GIVE),
    "a list of floats": ([FLOATS[0]], _takes("float32 (3, 24, 32)"), GIVE),
    "a list of batches": ([PICTURE[None]], _takes("uint8 (1, 24, 32, 3)"), GIVE),
    "a batch of no floats": (FLOATS[:0], NO_VALUES, SCALE),
    "NaN": (FLOATS * np.float32(np.nan), NO_VALUES, SCALE),
    "above 1": (np.nextafter(FLOATS + 0.5, np.float32(2)), NO_VALUES, SCALE),
    "below 0": (np.nextafter(FLOATS - 0.5, np.float32(-1)), NO_VALUES, SCALE),
}


@pytest.mark.parametrize("case", IMAGES)
def test_what_is_no_image(case: str) -> None:
    image, what, fix = IMAGES[case]
    with pytest.raises(ShapeError) as caught:
        prepare(image, SIZE)
    assert (caught.value.what, caught.value.fix) == (what, fix)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_zero_and_one_are_values_of_an_image(value: float) -> None:
    image = np.full_like(FLOATS, value)
    assert prepare(image, SIZE).batch is image


LOADS: dict[str, tuple[dict[str, Any], type[ZMaskError], str, str]] = {
    "a backend that does not exist": (
        {"backend": "openvino"},
        UsageError,
        "There is no backend 'openvino'.",
        "Choose among auto, onnxruntime, onnxruntime-cpu, onnxruntime-cuda, tensorrt, tensorrt-rtx.",
    ),
    "threads below 0": (
        {"threads": -1},
        UsageError,
        "-1 threads are not possible.",
        "Give 0 to 4096.",
    ),
    "a share above 1": (
        {"max_covered": 1.5},
        UsageError,
        "A covered share of 1.5 is not in [0, 1].",
        "Give for example 0.5.",
    ),
    "an engine that was not built": (
        {"backend": "tensorrt-rtx"},
        BackendUnavailableError,
        "The bundle {bundle} has no tensorrt-rtx engine.",
        "Build it with --target tensorrt-rtx, or choose another backend.",
    ),
}


@pytest.mark.parametrize("case", LOADS)
def test_what_a_bundle_is_not_loaded_with(case: str, detect_bundle: Path) -> None:
    options, kind, what, fix = LOADS[case]
    with pytest.raises(kind) as caught:
        zmask_export.load(detect_bundle, **options)
    expected = (what.format(bundle=detect_bundle), fix)
    assert (caught.value.what, caught.value.fix) == expected


def test_what_is_no_threshold(detect_bundle: Path) -> None:
    with zmask_export.load(detect_bundle) as engine, pytest.raises(UsageError) as caught:
        engine(np.zeros((*BUNDLE_SIZE, 3), np.uint8), threshold=-0.5)
    assert caught.value.what == "A threshold of -0.5 is not possible."
    assert caught.value.fix == "Give a number of at least 0."

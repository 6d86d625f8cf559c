from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from zmask_export import presets
from zmask_export.errors import InputError, UsageError
from zmask_export.models import registry
from zmask_export.presets import load_preset
from zmask_export.spec import PREPROCESS, DefenseSpec, Preprocess, explain

CALIB = Path(__file__).parent.parent / "calib"
SHIPPED = sorted(p for p in CALIB.glob("*/*.yaml") if p.name != "study.yaml")
DEFENSE: dict[str, Any] = {
    "shallow": ("a", "b"),
    "deep": ("b", "c"),
    "shallow_kernels": ((4, 4), (2, 2)),
    "deep_kernels": ((4, 4),),
    "grid": (8, 8),
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.relative_to(CALIB).as_posix())
def test_every_shipped_preset_gives_a_defense(path: Path) -> None:
    preset = load_preset(path)
    defense = preset.defense(("s",), ("d",))
    assert defense.grid == preset.grid
    assert "fp32" in preset.tolerances


def test_presets_are_shipped() -> None:
    assert len(SHIPPED) >= 3


def test_the_paper_preset_for_segmentation_is_section_4_1() -> None:
    preset = load_preset(CALIB / "paper" / "segmentation.yaml")
    assert preset.shallow_kernels == ((64, 128), (32, 64), (16, 32), (8, 16))
    assert preset.deep_kernels == ((64, 128), (32, 64))
    assert preset.grid == (150, 300)
    assert preset.input_size == (1024, 2048)
    assert preset.registration == "paper"
    assert preset.fill == "black"


def test_the_paper_preset_for_detection_is_section_4_1() -> None:
    preset = load_preset(CALIB / "paper" / "detection.yaml")
    assert preset.shallow_kernels == ((40, 40), (25, 25), (10, 10))
    assert preset.deep_kernels == ((80, 80), (40, 40))
    assert preset.grid == (400, 500)
    assert preset.registration == "paper"
    assert preset.fill == "black"


TOLERANCES = {
    "logits_atol": 0.1, "logits_rtol": 0.1, "logits_outliers": 0, "score_rtol": 0.1,
    "mask_iou": 0.9, "heatmap_rtol": 0.1,
}  # fmt: skip


def _shipped_fields() -> dict[str, Any]:
    return yaml.safe_load((CALIB / "paper" / "segmentation.yaml").read_text())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"grid": [0, 5]}, "grid.0"),
        ({"fill": "pink"}, "fill"),
        ({"tolerances": {"fp4": {}}}, "tolerances"),
        ({"input_size": None}, "input_size"),
        ({"tolerances": {"fp32": TOLERANCES | {"score_rtol": float("inf")}}}, "score_rtol"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(yaml.safe_dump(_shipped_fields() | change))
    with pytest.raises(InputError, match=named):
        load_preset(path)


@pytest.mark.parametrize(
    "text",
    ["", "just words", "a: [1", "about: 2024-99-99", "[" * 5000, "a: !!python/name:os.system"],
    ids=["empty", "words", "open", "impossible date", "deep", "code"],
)
def test_a_file_that_is_no_preset_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"preset\.yaml"):
        load_preset(path)


def test_an_unreadable_preset_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"about: \xff\xfe")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(UsageError, match="cannot be read"):
            load_preset(path)


@pytest.mark.parametrize("name", registry.names())
def test_every_network_has_a_preset(name: str) -> None:
    found = presets.find(name)
    brought = [path for path in (found.weights, found.calibration, found.patch) if path]
    paper = {"ssd300", "retinanet", "fasterrcnn"}
    assert len(brought) == (0 if name in paper else 3)
    assert all(path.is_file() for path in brought)
    assert min(found.preset.input_size) >= registry.get(name).min_side


def test_presets_are_found_by_name_and_by_path() -> None:
    by_name = presets.find("icnet", "paper")
    by_path = presets.find("icnet", str(CALIB / "paper" / "segmentation.yaml"))
    assert by_name == by_path == presets.find("icnet", "segmentation")
    assert by_name.weights is None


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="There is no preset 'nonsense'") as caught:
        presets.find("icnet", "nonsense")
    assert "detection" in caught.value.fix


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shallow": ()}, "shallow"),
        ({"deep": ("b", "b")}, "deep taps name a tap twice"),
        ({"deep_kernels": ((4, 9),)}, "larger than the grid"),
        ({"shallow_kernels": ()}, "shallow_kernels"),
        ({"grid": (8, 20000)}, "grid"),
        ({"registration": "crooked"}, "registration"),
        ({"corners": -1}, "corners"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_defense_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DefenseSpec.model_validate(DEFENSE | change)
    assert message in explain(caught.value)


def test_taps_are_listed_once_s_first() -> None:
    assert DefenseSpec(**DEFENSE).taps == ("a", "b", "c")


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DefenseSpec(**DEFENSE).grid = (1, 1)  # type: ignore[misc]


def test_a_bgr_mean_is_given_back_as_rgb() -> None:
    assert PREPROCESS["caffe"].rgb_mean == tuple(v / 255 for v in (123.68, 116.779, 103.939))
    assert PREPROCESS["imagenet"].rgb_mean == PREPROCESS["imagenet"].mean


def test_a_normalisation_divides_by_something() -> None:
    with pytest.raises(ValidationError, match="std"):
        Preprocess(mean=(0, 0, 0), std=(1, 0, 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_normalisation_is_of_numbers(value: float) -> None:
    with pytest.raises(ValidationError, match="mean"):
        Preprocess(mean=(0, value, 0), std=(1, 1, 1))
    with pytest.raises(ValidationError, match="std"):
        Preprocess(mean=(0, 0, 0), std=(1, 1, value))

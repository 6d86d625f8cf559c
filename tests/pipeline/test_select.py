"""calibrate --select-taps: on a network with one blind and one seeing layer, and from the command line."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Inputs, assert_refused, contents, zmask
from tests.drawn import PRESET, SIZE
from zmask_export.data.drawn import DrawnScenes
from zmask_export.data.images import Frame
from zmask_export.errors import DatasetError, ImageError, OutputError, UsageError
from zmask_export.fuse.plan import plan_taps
from zmask_export.models.bare import tap_paths
from zmask_export.models.registry import ModelEntry
from zmask_export.pipeline import select
from zmask_export.pipeline.network import NetworkOptions, OpenNetwork, open_network
from zmask_export.pipeline.select import Selection, SelectOptions, save_preset, select_taps
from zmask_export.presets import Shipped, load_preset
from zmask_export.spec import PREPROCESS, Preset


class _Kept(DrawnScenes):
    """Scenes that are drawn once."""

    def frames(
        self, start: int = 0, *, on_skip: Callable[[ImageError], None] | None = None
    ) -> Iterator[Frame | None]:
        return iter(_drawn(len(self.names))[start:])


@functools.cache
def _drawn(count: int) -> list[Frame | None]:
    return list(DrawnScenes(SIZE, count).frames())


SCENES = _Kept(SIZE, 6)
RED = torch.stack([torch.full((28, 37), level) for level in (1.0, 0.0, 0.0)])


class _Pattern(nn.Module):
    """Gives the same map whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer(
            "pattern", torch.randn(1, 4, SIZE[0] // 2, SIZE[1] // 2, generator=generator)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, :, ::2, ::2]) * 0 + self.get_buffer("pattern")


class _Eyes(nn.Module):
    """``eye`` answers to red, ``blind`` to nothing, ``head`` ends it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.eye = nn.Sequential(nn.Conv2d(3, 2, 2, 2), nn.ReLU())
        self.blind = _Pattern()
        self.head = nn.Sequential(OrderedDict(last=nn.Conv2d(4, classes, 1)))
        with torch.no_grad():
            # Red less green, and the same against blue.
            weight = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]) / 4
            self.eye[0].weight.copy_(weight[:, :, None, None].expand(2, 3, 2, 2))
            self.eye[0].bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blind(x) + self.eye(x).repeat(1, 2, 1, 1))


ENTRY = ModelEntry(
    name="eyes",
    factory=_Eyes,
    classes=3,
    preprocess=PREPROCESS["unit"],
    taps={"the eye": "eye", "blind": "blind"},
    shallow=("blind",),
    deep=("blind",),
    min_side=8,
    classes_from="head.last.weight",
)


@pytest.fixture
def preset(inputs: Inputs) -> Preset:
    return load_preset(inputs.preset)


def _opened(preset: Preset, taps: str = "blind") -> OpenNetwork:
    torch.manual_seed(0)
    return OpenNetwork(
        entry=ENTRY,
        network=ENTRY.build().eval(),
        classes=3,
        preprocess=ENTRY.preprocess,
        weights_sha256="0" * 64,
        input_size=SIZE,
        defense=preset.defense((taps,), (taps,)),
        asked=frozenset(),
        preset=preset,
        shipped=Shipped(preset, None, None, None),
    )


def test_the_layer_that_sees_replaces_the_blind_one(preset: Preset) -> None:
    found = select_taps(_opened(preset), SCENES, [RED], SelectOptions(budget=2))
    assert found.images == 6
    assert [layer.tap for layer in found.layers] == ["the eye", "blind"]
    eye, blind = found.layers
    assert eye.shape == (2, 48, 64)
    assert eye.quality.value > 0.6
    assert blind.quality.value < 0.1
    assert (found.proposed.shallow, found.proposed.deep) == (("the eye",), ("the eye",))
    assert (found.present.shallow, found.present.deep) == (("blind",), ("blind",))
    assert found.proposed.quality.value > 0.6 > 0.1 > found.present.quality.value


def test_the_cost_is_that_of_the_plan(preset: Preset) -> None:
    opened = _opened(preset)
    found = select_taps(opened, SCENES, [RED], SelectOptions(budget=2))
    shapes = {layer.tap: layer.shape for layer in found.layers}
    for sets in (found.proposed, found.present):
        plans = plan_taps(preset.defense(sets.shallow, sets.deep), shapes)
        assert sets.multiply_adds == sum(plan.multiply_adds for plan in plans)
    eye, blind = found.layers
    # The only deep kernel is the first shallow one: S and D together cost what S costs.
    assert found.proposed.multiply_adds == eye.shallow_cost == 2 * eye.deep_cost
    assert blind.shallow_cost == 2 * eye.shallow_cost


def test_the_budget_is_a_multiple_of_the_present_cost(preset: Preset) -> None:
    both = ("the eye", "blind")
    opened = _opened(preset)
    for budget in (0.5, 1.0):
        found = select_taps(opened, SCENES, [RED], SelectOptions(both, budget))
        assert found.proposed.multiply_adds <= budget * found.present.multiply_adds
    with pytest.raises(UsageError, match="No pair of layers"):
        select_taps(opened, DrawnScenes(SIZE, 0), [RED], SelectOptions(both, 0.49))
    for budget in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="is no budget"):
            select_taps(opened, SCENES, [RED], SelectOptions(both, budget))


def test_present_sets_are_compared_with_even_if_they_are_no_candidates(preset: Preset) -> None:
    found = select_taps(_opened(preset), SCENES, [RED], SelectOptions(("eye",)))
    assert {layer.tap for layer in found.layers} == {"eye", "blind"}
    assert found.proposed.shallow == ("eye",)
    found = select_taps(_opened(preset, "the eye"), SCENES, [RED], SelectOptions(("blind",), 2))
    assert found.proposed.shallow == found.proposed.deep == ("blind",)
    assert found.present.quality.value > found.proposed.quality.value


def test_present_sets_stay_where_nothing_is_better(preset: Preset) -> None:
    found = select_taps(_opened(preset, "the eye"), SCENES, [RED])
    assert found.proposed == found.present


def test_present_sets_beat_a_worse_choice_within_the_budget(
    preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = (("blind",), ("blind",))
    monkeypatch.setattr(select, "propose", lambda *_, **__: blind)
    opened = _opened(preset, "the eye")
    assert select_taps(opened, SCENES, [RED]).proposed.shallow == ("the eye",)
    only_blind = SelectOptions(("blind",), budget=2)
    assert select_taps(opened, SCENES, [RED], only_blind).proposed.shallow == ("blind",)


def test_the_same_seed_selects_the_same(preset: Preset) -> None:
    first, again, other = (
        select_taps(_opened(preset), SCENES, [RED], SelectOptions(seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.layers != other.layers


@pytest.mark.parametrize("names", [("nothing",), ("blind", "blind"), ("eye", "")])
def test_candidates_that_are_no_layers_are_refused(preset: Preset, names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        select_taps(_opened(preset), SCENES, [RED], SelectOptions(names))


def test_a_place_that_cannot_be_written_is_refused_first(preset: Preset, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        select_taps(_opened(preset), DrawnScenes(SIZE, 0), [], out=tmp_path)


def test_a_patch_is_needed_before_anything_runs(preset: Preset) -> None:
    with pytest.raises(DatasetError, match="without a patch"):
        select_taps(_opened(preset), DrawnScenes(SIZE, 0), [])


def test_a_saved_proposal_is_a_preset(preset: Preset, tmp_path: Path) -> None:
    opened = _opened(preset.model_copy(update={"weights": "w", "calibration": "c", "patch": "p"}))
    found = select_taps(opened, SCENES, [RED])
    save_preset(opened, found, tmp_path / "taps.yaml")
    assert contents(tmp_path) == ["taps.yaml"]
    saved = load_preset(tmp_path / "taps.yaml")
    assert saved.about == f"{preset.about} Taps chosen on 6 images."
    assert saved.shallow == saved.deep == ("the eye",)
    changed = {"about": preset.about, "shallow": None, "deep": None}
    assert saved.model_copy(update=changed) == preset


def _select(inputs: Inputs, out: Path, *more: object) -> tuple[object, ...]:
    return ("calibrate", *inputs.random, "--images", inputs.images, "--select-taps",
            "--patch", inputs.patch, "--out", out, *more)  # fmt: skip


def test_the_command_writes_a_preset_and_shows_tables(inputs: Inputs, out: Path) -> None:
    outcome = zmask(*_select(inputs, out.with_suffix(".yaml"), "--fill", "black"))
    assert outcome.code == 0, outcome.err
    assert contents(out.parent) == ["result.yaml"]
    saved = load_preset(out.with_suffix(".yaml"))
    assert saved.shallow
    assert saved.deep
    assert saved.fill == "black"
    for text in ("Layers alone, on 3 images", "convbnrelu1_2", "32x25x33", "proposed", "present"):
        assert text in outcome.out, text
    taps = f"S = {', '.join(saved.shallow)}; D = {', '.join(saved.deep)}"
    assert f"{out.with_suffix('.yaml')}: {taps}" in outcome.out.replace("\n", " ")
    opened = open_network(
        NetworkOptions("icnet", preset=str(out.with_suffix(".yaml")), random_weights=True)
    )
    assert (opened.defense.shallow, opened.defense.deep) == (saved.shallow, saved.deep)
    assert tap_paths(opened.entry, opened.defense.taps)


def test_the_command_gives_json(inputs: Inputs, out: Path) -> None:
    given = ("--candidates", "res_block2, convbnrelu1_2", "--json", "--limit", "2")
    outcome = zmask(*_select(inputs, out, *given))
    assert outcome.code == 0, outcome.err
    record = outcome.record
    assert set(record) == {"out", *Selection.__dataclass_fields__}
    assert (record["out"], record["images"]) == (str(out), 2)
    own = {"res_block5", "convbnrelu1_2", "res_block2", "conv5_4_k1"}
    assert {layer["tap"] for layer in record["layers"]} == own
    assert {*record["proposed"]["shallow"], *record["proposed"]["deep"]} <= {
        "res_block2",
        "convbnrelu1_2",
    }
    assert 0 <= record["proposed"]["quality"]["iou"] <= 1
    assert np.isfinite([layer["shallow_cost"] for layer in record["layers"]]).all()


@pytest.mark.parametrize("option", [("--patch", "p.png"), ("--candidates", "a"), ("--budget", "1")])
def test_options_of_the_selection_need_it(
    inputs: Inputs, out: Path, option: tuple[str, str]
) -> None:
    outcome = zmask("calibrate", *inputs.random, "--images", inputs.images, "--out", out, *option)
    assert_refused(outcome, 2, "--select-taps")


@pytest.mark.parametrize(
    ("more", "code", "word"),
    [
        (("--candidates", "res_block9"), 2, "res_block9"),
        (("--budget", "0"), 2, "is no budget"),
        (("--budget", "1e-9"), 2, "No pair of layers"),
        (("--limit", "1"), 4, "at least two images"),
    ],
)
def test_wrong_selections_are_refused(
    inputs: Inputs, out: Path, more: tuple[object, ...], code: int, word: str
) -> None:
    assert_refused(zmask(*_select(inputs, out, *more)), code, word)
    assert contents(out.parent) == []


def test_a_selection_needs_a_patch(inputs: Inputs, out: Path) -> None:
    assert "patch" not in PRESET
    outcome = zmask(
        "calibrate", *inputs.random, "--images", inputs.images, "--select-taps", "--out", out
    )
    assert_refused(outcome, 4, "--patch")

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.calibrate.layers import evidence_of, patch_cells
from tests.small import SIZE, as_float, random_calibration, tiny_bare, tiny_defense, tiny_images
from zmask_export.attack.transforms import Appearance
from zmask_export.calibrate import evidence as module
from zmask_export.calibrate import roc
from zmask_export.calibrate.evidence import Quality, best_iou, observe, separation
from zmask_export.defense.zmask import Heatmaps
from zmask_export.errors import DatasetError, PatchError
from zmask_export.spec import DefenseSpec

TAPS = ("stem", "mid", "tip")
STILL = Appearance(scale=(1.0, 1.0), brightness=0, contrast=0, noise=0)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), images=st.integers(1, 4), cells=st.integers(2, 30))
def test_the_best_iou_is_that_of_the_best_threshold(
    data: st.DataObject, images: int, cells: int
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    target = rng.random((images, cells)) < 0.4
    target[:, rng.integers(cells)] = True
    maps = rng.integers(0, data.draw(st.sampled_from([2, 5, 1000])), (images, cells))
    maps = maps.astype(np.float32)

    def mean_iou(threshold: float) -> float:
        covered = maps > threshold
        return float(((covered & target).sum(1) / (covered | target).sum(1)).mean())

    iou, threshold = best_iou(torch.from_numpy(maps), torch.from_numpy(target))
    assert iou == pytest.approx(mean_iou(threshold), abs=1e-6)
    levels = np.quantile(maps[target], np.linspace(0, 1, 64, endpoint=False)).astype(np.float32)
    assert iou == pytest.approx(max(map(mean_iou, levels)), abs=1e-6)


def test_one_threshold_serves_all_images() -> None:
    target = torch.tensor([[True, False], [True, False]])
    same = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    other = torch.tensor([[2.0, 1.0], [20.0, 10.0]])
    # Cells equal to a level do not pass it, so the level inside both patches covers nothing.
    assert best_iou(torch.cat([same, same + 1]), target.repeat(2, 1))[0] == pytest.approx(0.5)
    assert best_iou(other, target)[0] < 0.75


@pytest.mark.parametrize(
    ("iou", "auc", "value"), [(0.8, 1.0, 0.8), (0.8, 0.5, 0.0), (0.8, 0.1, 0.0), (0.5, 0.75, 0.25)]
)
def test_quality_needs_both(iou: float, auc: float, value: float) -> None:
    assert Quality(iou, auc).value == pytest.approx(value)


@pytest.mark.parametrize(("distance", "spread"), [(0.0, 1.0), (1.0, 0.5), (2.0, 1.5), (-1.0, 1.0)])
def test_separation_is_the_area_under_the_curve_of_lognormal_values(
    distance: float, spread: float
) -> None:
    rng = np.random.default_rng(0)
    clean = np.exp(rng.normal(0.3, 1, 20_000))
    patched = np.exp(rng.normal(0.3 + distance, spread, 20_000))
    values = torch.from_numpy(np.stack([clean, patched], 1).astype(np.float32))
    assert separation(values) == pytest.approx(roc.auc(clean, patched), abs=0.01)


def test_separation_in_a_closed_case() -> None:
    # Logarithms of mean 1 and 3, both with a population variance of 1: Phi(2 / sqrt(2)).
    values = torch.tensor([[0.0, 2.0], [2.0, 4.0]]).exp()
    assert separation(values) == pytest.approx(0.921350, abs=1e-6)


def test_separation_tells_thin_margins_from_wide_ones() -> None:
    thin = torch.tensor([[1.0, 2.1], [1.5, 2.5], [2.0, 3.0]])
    wide = thin * torch.tensor([1.0, 3.0])
    assert 0.9 < separation(thin) < separation(wide) < 1
    assert separation(thin * 7) == pytest.approx(separation(thin))
    assert separation(thin.flip(1)) == pytest.approx(1 - separation(thin))


@pytest.mark.parametrize(("pair", "area"), [((0, 0), 0.5), ((3, 3), 0.5), ((0, 1), 1), ((2, 1), 0)])
def test_separation_of_constants(pair: tuple[float, float], area: float) -> None:
    assert separation(torch.tensor([pair, pair]).float()) == area


def test_a_layer_that_sees_the_patch_is_told_from_a_blind_one() -> None:
    evidence = evidence_of({"eye": patch_cells(), "blind": None})
    eye, blind = evidence.layer("eye"), evidence.layer("blind")
    assert eye.shallow.iou > 0.9
    assert min(eye.shallow.auc, eye.deep.auc) > 0.999
    assert eye.value > 0.9
    assert blind.value < 0.2
    assert evidence.judge(("eye",), ("eye",)).value > 0.9
    assert evidence.judge(("blind",), ("blind",)).value < 0.2


def test_s_localises_behind_the_gate_of_d_and_d_tells_images_apart() -> None:
    evidence = evidence_of({"eye": patch_cells(), "blind": None})
    hs, hd = evidence.shallow["blind"].float().numpy(), evidence.deep["eye"].float().numpy()
    target = evidence.target.numpy()
    open_ = hd[:, 1] >= np.quantile(hd[:, 1][target], 0.02)
    ious = [
        np.mean([
            (covered & inside).sum() / (covered | inside).sum()
            for covered, inside in zip((hs[:, 1] > level) & open_, target, strict=True)
        ])
        for level in np.unique(hs[:, 1])
    ]  # fmt: skip
    quality = evidence.judge(("blind",), ("eye",))
    assert quality.auc > 0.999
    assert quality.iou == pytest.approx(max(ious), abs=0.02)
    assert evidence.judge(("eye",), ("blind",)).auc == evidence.layer("blind").deep.auc < 0.8


def test_a_gate_takes_away_what_is_hot_outside_the_patch() -> None:
    texture = torch.zeros_like(patch_cells())
    texture[:, 10:, 8:] = True
    evidence = evidence_of({"textured": patch_cells() | texture, "eye": patch_cells()})
    assert evidence.layer("textured").shallow.iou < 0.8
    assert evidence.judge(("textured",), ("textured",)).iou < 0.8
    assert evidence.judge(("textured",), ("eye",)).iou > 0.9


def test_every_second_image_is_apart() -> None:
    evidence = evidence_of({"eye": patch_cells()})
    even, odd = evidence.every_second(0), evidence.every_second(1)
    for half, rows in ((even, [0, 2, 4]), (odd, [1, 3, 5])):
        assert torch.equal(half.target, evidence.target[rows])
        assert torch.equal(half.shallow["eye"], evidence.shallow["eye"][rows])
        assert torch.equal(half.deep["eye"], evidence.deep["eye"][rows])


def _heatmaps() -> Heatmaps:
    bare = tiny_bare()
    defense = DefenseSpec.model_validate(
        tiny_defense().model_dump() | {"shallow": TAPS, "deep": TAPS}
    )
    calibration = random_calibration(bare, defense)
    return Heatmaps(
        defense,
        {tap: torch.from_numpy(v) for tap, v in calibration.mean.items()},
        {tap: torch.from_numpy(v) for tap, v in calibration.std.items()},
    )


def test_observing_gives_each_layer_clean_and_patched() -> None:
    heatmaps, images = _heatmaps(), tiny_images(4)[::2]
    patch = torch.from_numpy(np.random.default_rng(0).random((3, 20, 24), dtype=np.float32))
    told: list[int] = []
    evidence = observe(
        tiny_bare(), heatmaps, images, [patch], appearance=STILL, on_image=told.append
    )
    cells = heatmaps.defense.grid[0] * heatmaps.defense.grid[1]
    assert told == [1, 2]
    assert evidence.target.shape == (2, cells)
    with torch.inference_mode():
        clean = heatmaps(tiny_bare()(torch.from_numpy(as_float(images)))[1])
    for branch, maps in (("shallow", evidence.shallow), ("deep", evidence.deep)):
        assert tuple(maps) == TAPS
        for tap in TAPS:
            assert maps[tap].shape == (2, 2, cells)
            expected = clean[f"{branch}.{tap}"].flatten(1).bfloat16()
            torch.testing.assert_close(maps[tap][:, 0], expected, rtol=0.01, atol=1e-4)
            assert not torch.equal(maps[tap][:, 0], maps[tap][:, 1])
    # 20 x 24 of 48 x 64 pixels.
    share = evidence.target.float().mean(1)
    assert ((share > 0.1) & (share < 0.22)).all()
    again = observe(tiny_bare(), heatmaps, images, [patch], appearance=STILL)
    other = observe(tiny_bare(), heatmaps, images, [patch], appearance=STILL, seed=1)
    assert torch.equal(again.target, evidence.target)
    assert not torch.equal(other.target, evidence.target)


def test_patches_are_used_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    monkeypatch.setattr(module, "vary", lambda p, *_: (used.append(float(p[0, 0, 0])), p)[1])
    patches = [torch.full((3, 20, 20), level) for level in (0.25, 0.75)]
    observe(tiny_bare(), _heatmaps(), tiny_images(3), patches)
    assert used == [0.25, 0.75, 0.25]


@pytest.mark.parametrize(
    ("count", "sides", "error"),
    [
        (1, [(20, 20)], DatasetError),
        (0, [(20, 20)], DatasetError),
        (2, [(1, 1)], PatchError),
        (2, [(20, 20), (SIZE[0] + 1, 20)], PatchError),
    ],
)
def test_what_taps_cannot_be_chosen_on_is_refused(
    count: int, sides: list[tuple[int, int]], error: type[Exception]
) -> None:
    patches = [torch.full((3, *side), 0.5) for side in sides]
    with pytest.raises(error):
        observe(tiny_bare(), _heatmaps(), tiny_images(2)[:count], patches, appearance=STILL)

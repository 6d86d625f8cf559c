from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.small import (
    SIZE,
    as_float,
    random_calibration,
    reference,
    split_flags,
    tiny_bare,
    tiny_defense,
    tiny_images,
)
from zmask_export.artifacts.calibration import Calibration
from zmask_export.defense import zmask
from zmask_export.defense.cascade import deployed_heatmap, literal_heatmap
from zmask_export.defense.zmask import Heatmaps, Observation, ZMask, cover, fill_colour
from zmask_export.errors import CalibrationError
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import Fill, Policy, Registration

BARE = tiny_bare()
IMAGES = torch.from_numpy(as_float(tiny_images()))


def mixed(
    bare: BareNetwork = BARE, registration: Registration = "aligned", fill: Fill = "black"
) -> Calibration:
    """A calibration that flags some of IMAGES."""
    calibration = random_calibration(bare, tiny_defense(registration, fill))
    return split_flags(bare, calibration, IMAGES)


def _recorded(
    used: list[str], name: str, heatmap: Callable[..., Tensor], *arguments: Any
) -> Tensor:
    used.append(name)
    return heatmap(*arguments)


def logits(images: Tensor) -> Tensor:
    with torch.inference_mode():
        return BARE.predict(images)["logits"]


def test_detect_keeps_the_prediction_of_the_whole_image() -> None:
    got = reference(BARE, mixed(), Policy.DETECT, IMAGES)
    assert set(got["flag"].tolist()) == {True, False}
    torch.testing.assert_close(torch.from_numpy(got["logits"]), logits(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize("policy", [Policy.MASK, Policy.GATED])
@pytest.mark.parametrize(("fill", "colour"), [("black", (0, 0, 0)), ("mean", (0.4, 0.5, 0.6))])
def test_second_pass_reads_the_covered_image(
    policy: Policy, fill: Fill, colour: tuple[float, ...]
) -> None:
    got = reference(BARE, mixed(fill=fill), policy, IMAGES)
    covered = IMAGES.clone()
    for index, mask in enumerate(torch.from_numpy(got["mask"])):
        covered[index, :, mask[0] == 0] = torch.tensor(colour, dtype=torch.float32)[:, None]
    assert not torch.equal(covered, IMAGES)
    torch.testing.assert_close(torch.from_numpy(got["logits"]), logits(covered))
    changed = (torch.from_numpy(got["logits"]) - logits(IMAGES)).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert changed.tolist() == got["flag"].tolist()


@pytest.mark.parametrize("policy", list(Policy))
def test_mask_covers_flagged_images_alone(policy: Policy) -> None:
    got = reference(BARE, mixed(), policy, IMAGES)
    for flag, mask in zip(got["flag"], got["mask"], strict=True):
        assert (mask == 0).any() == flag


def test_gate_stays_shut_where_nothing_is_flagged() -> None:
    calibration = mixed().with_header(threshold=1e9)
    got = reference(BARE, calibration, Policy.GATED, IMAGES)
    assert not got["flag"].any()
    torch.testing.assert_close(torch.from_numpy(got["logits"]), logits(IMAGES), rtol=0, atol=0)


def test_given_threshold_replaces_the_calibrated_one() -> None:
    module = ZMask(BARE, mixed(), Policy.DETECT)
    with torch.inference_mode():
        assert not module(IMAGES, torch.tensor([1e9]))["flag"].any()
        assert module(IMAGES, torch.tensor([0.0]))["flag"].all()


@pytest.mark.parametrize("registration", ["paper", "aligned"])
def test_deployed_form_equals_the_literal_one(registration: Registration) -> None:
    calibration = mixed(registration=registration)
    literal = reference(BARE, calibration, Policy.GATED, IMAGES)
    with torch.inference_mode():
        deployed = ZMask(BARE, calibration, Policy.GATED, "deployed")(IMAGES)
    assert list(deployed) == list(literal)
    for name, value in literal.items():
        torch.testing.assert_close(
            deployed[name], torch.from_numpy(value), rtol=1e-4, atol=1e-5, msg=name
        )


@pytest.mark.parametrize("form", ["literal", "deployed", None])
def test_heatmaps_are_computed_in_the_form_that_was_asked_for(
    form: Literal["literal", "deployed"] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = mixed()
    used: list[str] = []
    for name, heatmap in (("literal", literal_heatmap), ("deployed", deployed_heatmap)):
        recorded = functools.partial(_recorded, used, name, heatmap)
        monkeypatch.setattr(zmask, f"{name}_heatmap", recorded)
    options = {} if form is None else {"form": form}
    defense = calibration.header.defense
    mean, std = (
        {tap: torch.from_numpy(value) for tap, value in values.items()}
        for values in (calibration.mean, calibration.std)
    )
    with torch.inference_mode():
        _, features = BARE(IMAGES)
        Heatmaps(defense, mean, std, **options)(features)
        Heatmaps.of(calibration, **options)(features)
        ZMask(BARE, calibration, **options)(IMAGES)
    assert set(used) == {form or "literal"}


@pytest.mark.parametrize("registration", ["paper", "aligned"])
def test_a_layer_s_heatmap_is_registered_as_the_defense_says(registration: Registration) -> None:
    calibration = mixed(registration=registration)
    defense = calibration.header.defense
    with torch.inference_mode():
        _, features = BARE(IMAGES)
        heatmaps = Heatmaps.of(calibration)
        got = heatmaps(features)["deep.tip"]
        z = heatmaps.zscores(features)["tip"]
    expected = literal_heatmap(z, defense.deep_kernels, defense.grid, registration)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("reach", [0, 16])
def test_corners_are_filled_as_far_as_the_defense_says(reach: int) -> None:
    calibration = random_calibration(BARE, tiny_defense(corners=reach), threshold=0.0)
    high = torch.zeros(1, 1, 12, 17)
    high[..., 0, 0] = high[..., 11, 16] = 99
    seen = Observation(IMAGES[:1], BARE(IMAGES[:1])[0], {"shallow": high, "deep": high})
    with torch.inference_mode():
        mask = ZMask(BARE, calibration, Policy.DETECT).decide(seen)["mask"][0, 0]
    corners = [mask[0, 0], mask[-1, -1], mask[0, -1], mask[-1, 0]]
    assert [corner.item() for corner in corners] == [0, 0, reach == 0, reach == 0]


@pytest.mark.parametrize("policy", list(Policy))
def test_an_image_does_not_depend_on_its_batch(policy: Policy) -> None:
    calibration = mixed()
    together = reference(BARE, calibration, policy, IMAGES)
    for index in range(len(IMAGES)):
        alone = reference(BARE, calibration, policy, IMAGES[index : index + 1])
        for name, value in alone.items():
            torch.testing.assert_close(
                torch.from_numpy(together[name][index : index + 1]),
                torch.from_numpy(value),
                rtol=1e-4,
                atol=1e-5,
                msg=name,
            )


@pytest.mark.parametrize("policy", list(Policy))
def test_nan_pixel_raises_the_flag_of_its_image_alone(policy: Policy) -> None:
    calibration = mixed()
    clean = reference(BARE, calibration, policy, IMAGES)
    broken = IMAGES.clone()
    broken[0, 1, 5, 5] = torch.nan
    got = reference(BARE, calibration, policy, broken)
    assert got["flag"][0]
    for name, value in clean.items():
        torch.testing.assert_close(
            torch.from_numpy(got[name][1:]), torch.from_numpy(value[1:]), msg=name
        )


def test_branch_maps_are_the_maximum_of_their_layers() -> None:
    got = reference(BARE, mixed(), Policy.DETECT, IMAGES)
    for branch, taps in (("shallow", ("stem", "mid")), ("deep", ("mid", "tip"))):
        layers = [torch.from_numpy(got[f"heatmap.{branch}.{tap}"]) for tap in taps]
        expected = torch.maximum(*layers)
        assert torch.equal(torch.from_numpy(got[f"heatmap_{branch}"]), expected)
    assert got["mask"].shape == (4, 1, *SIZE)
    assert got["soft_mask"].shape == (4, 1, 12, 17)


def test_fill_colour_is_rgb_for_a_bgr_network() -> None:
    preprocess = BARE.preprocess.model_copy(update={"bgr": True})
    bare = BareNetwork(BARE.network, preprocess, BARE.paths)
    assert fill_colour(bare, "mean", IMAGES).flatten().tolist() == pytest.approx([0.6, 0.5, 0.4])
    assert fill_colour(bare, "black", IMAGES).eq(0).all()


def test_fill_colour_has_the_image_s_type_and_place() -> None:
    for like in (IMAGES, IMAGES.double(), IMAGES.to("meta")):
        colour = fill_colour(BARE, "mean", like)
        assert (colour.dtype, colour.device) == (like.dtype, like.device)


def test_cover_leaves_kept_pixels_as_they_are() -> None:
    mask = (torch.rand(4, 1, *SIZE, generator=torch.manual_seed(1)) > 0.5).float()
    got = cover(IMAGES, mask, torch.tensor([0.1, 0.2, 0.3])[:, None, None])
    kept = mask.expand_as(IMAGES) == 1
    assert torch.equal(got[kept], IMAGES[kept])
    assert got[0, :, mask[0, 0] == 0].unique(dim=1).flatten().tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )


def test_calibration_must_be_fitted() -> None:
    with pytest.raises(CalibrationError, match="no fitted fusion block"):
        ZMask(BARE, mixed().with_header(threshold=None))

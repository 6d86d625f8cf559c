from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.small import (
    PREPROCESS,
    SIZE,
    as_float,
    random_calibration,
    split_flags,
    tiny_bare,
    tiny_defense,
    tiny_images,
)
from zmask_export.defense.zmask import ZMask
from zmask_export.evaluate import subjects
from zmask_export.evaluate.subjects import Image, Inside, Outcome, ReferenceNetwork
from zmask_export.spec import Fill

IMAGES = as_float(tiny_images())
NOWHERE = np.zeros(SIZE, bool)


class Mirror:
    """A network whose prediction is the red channel."""

    threshold = 1.0

    def __init__(self, colour: tuple[float, float, float] = (0, 0, 0)) -> None:
        self.colour = colour

    def bare(self, image: Image) -> Outcome:
        return Outcome((image[0, 0] * 255).round().astype(np.uint8))

    def defended(self, image: Image) -> Outcome:
        return Outcome()


def reference(fill: Fill = "mean") -> tuple[ReferenceNetwork, ZMask]:
    """The tiny network with classes that are about equally likely."""
    bare = tiny_bare()
    images = torch.from_numpy(IMAGES)
    with torch.no_grad():
        typical = bare.predict(images)["logits"].mean(dim=(0, 2, 3))
        bare.network.get_parameter("head.bias").sub_(typical)
    calibration = random_calibration(bare, tiny_defense(fill=fill))
    zmask = ZMask(bare, split_flags(bare, calibration, images))
    return ReferenceNetwork(zmask), zmask


def test_the_reference_gives_what_zmask_gives() -> None:
    network, zmask = reference()
    flags = []
    for image in IMAGES[:, None]:
        with torch.inference_mode():
            whole = zmask(torch.from_numpy(image))
            logits = zmask.bare.predict(torch.from_numpy(image))["logits"]
        outcome = subjects.defended(network)(image, NOWHERE)
        assert outcome.prediction is not None
        assert outcome.kept is not None
        assert np.unique(outcome.prediction).size > 1
        np.testing.assert_array_equal(outcome.prediction, whole["logits"][0].argmax(0))
        np.testing.assert_array_equal(outcome.kept, whole["mask"][0, 0] == 1)
        assert outcome.scores == {"zmask": float(whole["score"][0])}
        flags.append(outcome.scores["zmask"] > network.threshold)
        assert flags[-1] == bool(whole["flag"][0])
        bare = subjects.undefended(network)(image, NOWHERE)
        np.testing.assert_array_equal(bare.prediction, logits[0].argmax(0))
        assert (bare.kept, bare.scores) == (None, {})
    assert len(set(flags)) == 2


def test_the_oracle_covers_the_exact_patch_in_the_defenses_colour() -> None:
    inside = NOWHERE.copy()
    inside[5:25, 10:40] = True
    outcome = subjects.oracle(Mirror((0.4, 0.5, 0.6)))(IMAGES[:1], inside)
    assert outcome.prediction is not None
    assert (outcome.prediction[inside] == 102).all()
    bare = Mirror().bare(IMAGES[:1]).prediction
    assert bare is not None
    np.testing.assert_array_equal(outcome.prediction[~inside], bare[~inside])


@pytest.mark.parametrize(("fill", "colour"), [("mean", PREPROCESS.mean), ("black", (0, 0, 0))])
def test_the_reference_knows_its_colour(fill: Fill, colour: tuple[float, float, float]) -> None:
    assert reference(fill)[0].colour == colour


def test_a_filter_stands_before_the_bare_network() -> None:
    def rolled(image: Image, inside: Inside) -> Image:
        return np.roll(image, 7, axis=3)

    outcome = subjects.filtered(Mirror(), rolled)(IMAGES[:1], NOWHERE)
    expected = Mirror().bare(np.roll(IMAGES[:1], 7, axis=3)).prediction
    np.testing.assert_array_equal(outcome.prediction, expected)
    module = subjects.module_filter(lambda x: x.roll(7, 3))
    np.testing.assert_array_equal(module(IMAGES[:1], NOWHERE), rolled(IMAGES[:1], NOWHERE))


def test_detectors_score_the_activation_of_their_tap() -> None:
    class Peak(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.amax(dim=(1, 2, 3))

    bare = tiny_bare()
    outcome = subjects.detectors(bare, "mid", {"peak": Peak()})(IMAGES[:1], NOWHERE)
    with torch.inference_mode():
        _, features = bare(torch.from_numpy(IMAGES[:1]))
    assert outcome.scores == {"peak": float(features["mid"].max())}
    assert (outcome.prediction, outcome.kept) == (None, None)

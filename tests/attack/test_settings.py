from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from zmask_export.attack.settings import CraftSettings
from zmask_export.attack.transforms import Appearance
from zmask_export.errors import UsageError

PLAIN = CraftSettings(size=(14, 16))


@pytest.mark.parametrize(
    ("changes", "kind", "share"),
    [
        ({}, "adversarial", 1),
        ({"beta": 0.9}, "over-activation", 0.9),
        ({"beta": 0.0}, "over-activation", 0),
        ({"aware": "mask"}, "adversarial", 1),
        ({"aware": "mask", "alpha": 0.3}, "adv-mask", 0.3),
        ({"aware": "flag", "alpha": 0.0}, "adv-flag", 0),
    ],
)
def test_what_a_patch_is_made_for(changes: dict[str, Any], kind: str, share: float) -> None:
    settings = replace(PLAIN, **changes)
    assert (settings.kind, settings.share) == (kind, share)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"beta": -0.1}, "beta is -0.1"),
        ({"beta": 1.1}, "beta is 1.1"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"aware": "flag", "alpha": 2.0}, "alpha is 2.0"),
        ({"alpha": 0.5}, "no part of the defense"),
        ({"aware": "mask", "alpha": 0.5, "beta": 0.5}, "two attacks"),
        ({"smoothness": -1.0}, "smoothness is -1.0"),
        ({"smoothness": float("inf")}, "smoothness is inf"),
        ({"printability": float("nan")}, "printability is nan"),
        ({"appearance": Appearance(scale=(0, 1))}, "Sizes from 0 to 1"),
        ({"appearance": Appearance(scale=(1.2, 0.8))}, "no range"),
        ({"appearance": Appearance(scale=(1, float("inf")))}, "no range"),
        ({"seed": -1}, "seed is -1"),
        ({"aware_images": 2}, "defense-aware"),
        ({"aware": "flag", "alpha": 0.5, "aware_images": 0}, "1 or more"),
        ({"target_class": 1}, "for detectors"),
        ({"box_weight": 0.5}, "for detectors"),
        ({"goal": "untargeted", "box_weight": -1.0}, "boxes is -1.0"),
        ({"goal": "untargeted", "box_weight": float("nan")}, "boxes is nan"),
        ({"goal": "untargeted", "balanced": True}, "segmentation network only"),
        ({"goal": "untargeted", "combine": "paper"}, "segmentation network only"),
        ({"goal": "untargeted", "target_class": 1}, "need each other"),
        ({"goal": "false-detection"}, "need each other"),
        ({"goal": "false-detection", "target_class": 0}, "no class 0"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError) as caught:
        replace(PLAIN, **changes)
    assert word in caught.value.what


def test_the_learning_rate_falls_to_a_tenth() -> None:
    rates = [PLAIN.learning_rate(epoch) for epoch in range(PLAIN.epochs + 1)]
    assert rates[0] == pytest.approx(PLAIN.lr)
    assert rates[-1] == pytest.approx(PLAIN.lr / 10)
    assert rates == sorted(rates, reverse=True)

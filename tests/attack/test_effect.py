from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.attack.conftest import SIZE
from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.craft import random_patch
from zmask_export.attack.effect import measure
from zmask_export.attack.placement import random_placement
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.defense.zmask import ZMask
from zmask_export.errors import DatasetError, PatchError
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import Policy

PATCH = random_patch((14, 16), 3)


def test_it_counts_the_pixels_outside_the_patch(
    bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    samples[1].labels[5:9] = 3  # so that the network is not right everywhere without a patch
    right, total, flags, told = np.zeros(2), 0, [], []
    for index, sample in enumerate(samples):
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None] / 255.0
        place = random_placement(np.random.default_rng((2, index)), SIZE, (14, 16))
        patched = image.clone()
        patched[0, :, place.rows, place.columns] = PATCH
        counted = sample.labels != IGNORE
        counted[place.rows, place.columns] = False
        total += counted.sum()
        with torch.inference_mode():
            for k, x in enumerate((image, patched)):
                classes = bare.predict(x)["logits"].argmax(1)[0].numpy()
                right[k] += (classes == sample.labels)[counted].sum()
            flags.append(bool(ZMask(bare, calibration, Policy.MASK)(patched)["flag"]))
    found = measure(bare, samples, PATCH, calibration=calibration, seed=2, on_image=told.append)
    assert found.right_clean == pytest.approx(right[0] / total)
    assert found.right_patched == pytest.approx(right[1] / total)
    assert found.right_patched < found.right_clean < 1
    assert found.flagged == np.mean(flags)
    assert told == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1.0), (1e9, 0.0)])
def test_the_flag_is_that_of_the_threshold(
    bare: BareNetwork,
    samples: list[Sample],
    calibration: Calibration,
    threshold: float,
    share: float,
) -> None:
    other = calibration.with_header(threshold=threshold)
    assert measure(bare, samples[:2], PATCH, calibration=other).flagged == share


def test_without_a_fitted_defense_nothing_is_flagged(
    bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    plain = measure(bare, samples[:2], PATCH)
    assert plain.flagged is None
    unfitted = replace(calibration, fusion=None)
    assert measure(bare, samples[:2], PATCH, calibration=unfitted) == plain
    assert measure(bare, samples[:2], PATCH, seed=1) != plain


def test_it_needs_labelled_pixels_outside_a_patch_that_fits(
    bare: BareNetwork, samples: list[Sample]
) -> None:
    bald = replace(samples[0], labels=np.full_like(samples[0].labels, IGNORE))
    with pytest.raises(DatasetError, match="Not one labelled pixel"):
        measure(bare, [bald], PATCH)
    with pytest.raises(DatasetError, match="Not one labelled pixel"):
        measure(bare, samples[:1], random_patch(SIZE, 0))
    with pytest.raises(PatchError, match="does not fit"):
        measure(bare, samples, random_patch((SIZE[0] + 1, 3), 0))

"""Statistics at the edge of float32: dead channels, and those that hardly move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.numerics.networks import IMAGES, Subject, agree, named
from tests.numerics.networks import made as fresh
from tests.small import SIZE, to_bytes
from zmask_export.calibrate.moments import Moments
from zmask_export.export.bare import export_bare
from zmask_export.spec import Policy


def _with_std(made: Subject, tap: str, channels: slice, std: float) -> Subject:
    calibration = made.calibration
    changed = calibration.std[tap].copy()
    changed[channels] = std
    return made.with_calibration(replace(calibration, std=calibration.std | {tap: changed}))


def _with_noise(made: Subject, std: float) -> Subject:
    """The first channel of ``first`` always shows one number, two deviations above its mean."""
    shown = 0.7391
    conv = made.bare.network[0]
    with torch.no_grad():
        conv.weight[0] = 0
        conv.bias[0] = shown
    calibration = made.calibration
    mean, deviation = calibration.mean["first"].copy(), calibration.std["first"].copy()
    mean[0], deviation[0] = shown - 2 * std, std
    changed = replace(
        calibration,
        mean=calibration.mean | {"first": mean},
        std=calibration.std | {"first": deviation},
    )
    return Subject(made.bare, changed, to_bytes(export_bare(made.bare, SIZE)))


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("std", [0.0, 1e-45, 1e-40, 1.1e-38])
def test_a_dead_channel_counts_as_zero(std: float, policy: Policy) -> None:
    made = named("ReLU")
    dead = _with_std(_with_std(made, "first", slice(2), std), "last", slice(3), std)
    zero = _with_std(_with_std(made, "first", slice(2), 0.0), "last", slice(3), 0.0)
    got, expected = dead.run(dead.runner(policy), IMAGES), dead.reference(IMAGES, policy)
    assert np.isfinite(got["score"]).all()
    agree(got, expected)
    np.testing.assert_array_equal(got["score"], zero.run(zero.runner(policy), IMAGES)["score"])


@pytest.mark.parametrize("std", [0.0, 1e-45])
def test_all_channels_dead_score_zero(std: float) -> None:
    made = named("ReLU")
    for tap in ("first", "last"):
        made = _with_std(made, tap, slice(None), std)
    got = made.run(made.runner(Policy.GATED), IMAGES)
    assert (got["score"] == 0).all()
    assert not got["flag"].any()
    agree(got, made.reference(IMAGES, Policy.GATED))
    # And still no image that is not finite gets through.
    broken = IMAGES.copy()
    broken[2, 0, 7, 7] = np.nan
    got = made.run(made.runner(Policy.GATED), broken)
    assert got["flag"].tolist() == [False, False, True, False]
    agree(got, made.reference(broken, Policy.GATED))


@pytest.mark.parametrize("exponent", [-126, -100, -60, -30])
def test_a_channel_that_hardly_moved_flags_what_moves_it(exponent: int) -> None:
    made = _with_std(named("ReLU"), "first", slice(1), 2.0**exponent)
    got = made.run(made.runner(Policy.DETECT), IMAGES)
    assert got["flag"].all()
    np.testing.assert_array_equal(got["flag"], made.reference(IMAGES, Policy.DETECT)["flag"])


@pytest.mark.parametrize("exponent", [-21, -18, -12])
def test_what_little_a_channel_moves_is_not_cancelled(exponent: int) -> None:
    made = _with_noise(fresh("ReLU"), 1.37 * 2.0**exponent)
    got = made.run(made.runner(Policy.DETECT), IMAGES)
    expected = made.reference(IMAGES, Policy.DETECT)
    for name in ("heatmap_shallow", "heatmap.shallow.first"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.3e4, 1e-40, 1e30])
def test_a_constant_channel_is_measured_as_dead(value: float) -> None:
    rng = np.random.default_rng(0)

    def batch(images: int) -> NDArray[np.float32]:
        made = rng.random((images, 2, 5, 7), np.float32)
        made[:, 0] = value
        return made

    moments = Moments.empty(2)
    for images in (1, 3, 2, 7):
        moments = moments.merge(Moments.of(torch.from_numpy(batch(images))))
    std = moments.std().astype(np.float32)
    assert std[0] == 0
    assert std[1] > 0.1

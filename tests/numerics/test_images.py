"""Images that no camera should give: what the flag says of them is the same in every form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.numerics.networks import IMAGES, NETWORKS, Subject, agree, named
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.spec import Policy

TINY = float(np.finfo(np.float32).smallest_subnormal)
POLICIES = list(Policy)
NOT_FINITE = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[Subject, dict[Policy, OnnxRuntimeRunner]]:
    made = named(request.param)
    return made, {policy: made.runner(policy) for policy in Policy}


Networks = tuple[Subject, dict[Policy, OnnxRuntimeRunner]]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", NOT_FINITE)
def test_a_pixel_that_is_no_number_raises_the_flag_of_its_image_alone(
    kind: str, policy: Policy, network: Networks
) -> None:
    made, runners = network
    clean = made.run(runners[policy], IMAGES)
    for row, column in ((5, 5), (4, 4), (47, 63)):  # one the first layer may skip, one it reads
        broken = IMAGES.copy()
        broken[0, 1, row, column] = NOT_FINITE[kind]
        expected = made.reference(broken, policy)
        got = made.run(runners[policy], broken)
        assert np.isnan(got["score"][0])
        assert got["flag"][0]
        assert (got["mask"][0] == 1).all()
        agree(got, expected)
        for name in ("score", "flag", "mask", "soft_mask", "heatmap_shallow", "heatmap_deep"):
            np.testing.assert_array_equal(got[name][1:], clean[name][1:], err_msg=name)


def _patch_alone() -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    return rng.integers(0, 2, IMAGES.shape[1:]).astype(np.float32)


ODD: dict[str, NDArray[np.float32]] = {
    "all zero": np.zeros(IMAGES.shape[1:], np.float32),
    "negative zero": np.full(IMAGES.shape[1:], -0.0, np.float32),
    "constant": np.full(IMAGES.shape[1:], 0.5, np.float32),
    "saturated": np.ones(IMAGES.shape[1:], np.float32),
    "denormal": np.full(IMAGES.shape[1:], TINY, np.float32),
    "only patch": _patch_alone(),
    "one channel": np.stack([IMAGES[0, 0], 0 * IMAGES[0, 0], 0 * IMAGES[0, 0]]),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_an_odd_image_is_decided_as_by_the_reference(policy: Policy, network: Networks) -> None:
    made, runners = network
    odd = np.stack(list(ODD.values()))
    got, expected = made.run(runners[policy], odd), made.reference(odd, policy)
    assert np.isfinite(got["score"]).all()
    agree(got, expected)
    for name, value in got.items():
        if value.dtype == np.float32:
            assert np.isfinite(value).all(), name
    kinds = list(ODD)
    for one, other in (("all zero", "negative zero"), ("all zero", "denormal")):
        i, j = kinds.index(one), kinds.index(other)
        assert got["flag"][i] == got["flag"][j]
        np.testing.assert_allclose(got["score"][i], got["score"][j], rtol=1e-5)


@pytest.mark.parametrize("value", [1e10, -1e10, 1e30, 3e38])
def test_a_pixel_beyond_all_measure_is_flagged(value: float, network: Networks) -> None:
    made, runners = network
    images = IMAGES.copy()
    images[0, 1, 4, 4] = value
    expected = made.reference(images, Policy.DETECT)
    got = made.run(runners[Policy.DETECT], images)
    np.testing.assert_array_equal(got["flag"], expected["flag"])
    if not np.isfinite(expected["score"][0]) or expected["score"][0] > 1e3:
        assert got["flag"][0]

"""Random settings around small networks: graph and reference decide alike, odd images or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.numerics.networks import IMAGES, NETWORKS, Subject, agree, named
from tests.small import random_calibration, split_flags
from zmask_export.spec import DefenseSpec, Policy, Size

TAPS = st.sampled_from([("first",), ("last",), ("first", "last")])


@st.composite
def defenses(draw: st.DrawFn) -> DefenseSpec:
    """Any taps, grid, kernels, registration, fill and corners that fit each other."""
    grid = draw(st.tuples(st.integers(4, 16), st.integers(4, 20)))

    def kernels() -> tuple[Size, ...]:
        side = st.tuples(st.integers(1, grid[0]), st.integers(1, grid[1]))
        return tuple(draw(st.lists(side, min_size=1, max_size=3)))

    return DefenseSpec(
        shallow=draw(TAPS),
        deep=draw(TAPS),
        shallow_kernels=kernels(),
        deep_kernels=kernels(),
        grid=grid,
        registration=draw(st.sampled_from(["paper", "aligned"])),
        fill=draw(st.sampled_from(["black", "mean"])),
        corners=draw(st.integers(0, 4)),
    )


@st.composite
def pictures(draw: st.DrawFn) -> NDArray[np.float32]:
    """The usual pictures, and one that is flat, of few values, or holds what is no number."""
    odd = np.full(IMAGES.shape[1:], draw(st.sampled_from([0.0, 1.0, 0.5, 1e-45])), np.float32)
    kind = draw(st.sampled_from(["flat", "noise", "broken"]))
    if kind == "noise":
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        odd = rng.integers(0, 2, odd.shape).astype(np.float32)
    elif kind == "broken":
        place = draw(st.tuples(*(st.integers(0, side - 1) for side in odd.shape)))
        odd[place] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return np.concatenate([IMAGES, odd[None]])


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(list(NETWORKS)),
    defense=defenses(),
    images=pictures(),
    policy=st.sampled_from(list(Policy)),
    dead=st.sampled_from([0.0, 1e-42, None]),
)
def test_graph_and_reference_decide_alike(
    name: str,
    defense: DefenseSpec,
    images: NDArray[np.float32],
    policy: Policy,
    dead: float | None,
) -> None:
    exported = named(name)
    calibration = random_calibration(exported.bare, defense)
    tap = defense.taps[-1]
    std = calibration.std[tap].copy()
    std[-1] = std[-1] if dead is None else dead
    calibration = replace(calibration, std=calibration.std | {tap: std})
    calibration = split_flags(exported.bare, calibration, torch.from_numpy(IMAGES))
    made = Subject(exported.bare, calibration, exported.graph)
    runner = made.runner(policy)
    got, expected = made.run(runner, images), made.reference(images, policy)
    agree(got, expected)
    broken = ~np.isfinite(images).all(axis=(1, 2, 3))
    assert got["flag"][broken].all()
    np.testing.assert_array_equal(np.isnan(got["score"]), broken)
    alone = made.run(runner, images[-1:])
    np.testing.assert_array_equal(alone["score"][0], got["score"][-1])
    np.testing.assert_array_equal(alone["mask"][0], got["mask"][-1])

from __future__ import annotations

import numpy as np
import pytest
import torch
from overhead.cascade import (
    average,
    deployed_maps,
    differences,
    exact_maps,
    heatmap_as_written,
    literal_maps,
)

from tests.small import tiny_defense
from zmask_export.defense.cascade import deployed_heatmap, literal_heatmap
from zmask_export.defense.pooling import average_pool
from zmask_export.fuse.plan import plan_taps
from zmask_export.spec import Registration

REGISTRATIONS: tuple[Registration, ...] = ("paper", "aligned")
SHAPE = (2, 6, 7, 9)


def _z(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape, np.float32))


@pytest.mark.parametrize("registration", REGISTRATIONS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 4), (4, 3), (7, 9)])
def test_one_pooling_is_what_two_are(kernel: tuple[int, int], registration: Registration) -> None:
    z = _z(SHAPE)
    torch.testing.assert_close(
        average(z, kernel, registration), average_pool(z, kernel, registration)
    )


@pytest.mark.parametrize("registration", REGISTRATIONS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_literal_cascade_is_the_package_s(
    layout: torch.memory_format, registration: Registration
) -> None:
    z, kernels, grid = _z(SHAPE), ((6, 8), (3, 4), (2, 3)), (12, 17)
    found = heatmap_as_written(z.contiguous(memory_format=layout), kernels, grid, registration)
    for form in (literal_heatmap, deployed_heatmap):
        torch.testing.assert_close(found, form(z, kernels, grid, registration))


@pytest.mark.parametrize("registration", REGISTRATIONS)
def test_the_deployed_graph_has_the_literal_heatmaps(registration: Registration) -> None:
    defense = tiny_defense(registration)
    shapes = {"stem": (8, 24, 32), "mid": (32, 12, 16), "tip": (16, 6, 8)}
    for plan in plan_taps(defense, shapes):
        z = _z((1, *plan.shape))
        expected = literal_maps(z, plan.tap, defense)
        got = deployed_maps(plan, z, defense, threads=1)
        assert set(got) == set(expected) == set(plan.branches)
        over_top, over_cell = differences(got, expected)
        assert over_top < 1e-5
        assert over_cell < 1e-4
        exact = exact_maps(z, plan.tap, defense)
        assert all(maps.dtype == np.float64 for maps in exact.values())
        assert 0 < differences(got, exact)[0] < 1e-5


def test_differences_find_the_worst_heatmap_and_cell() -> None:
    expected = {"shallow": np.float32([1, 10]), "deep": np.float32([2, 4])}
    got = {"shallow": np.float32([1.5, 10]), "deep": np.float32([2, 4.4])}
    over_top, over_cell = differences(got, expected)
    assert over_top == pytest.approx(0.1)
    assert over_cell == pytest.approx(0.5)

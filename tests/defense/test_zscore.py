from __future__ import annotations

import pytest
import torch

from zmask_export.defense.zscore import zscore
from zmask_export.spec import SMALLEST_STD


def test_value_is_the_distance_to_the_mean_in_deviations() -> None:
    h = torch.tensor([3.0, 5.0, -1.0, 10.0]).reshape(1, 2, 1, 2)
    z = zscore(h, torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.5]))
    assert z.flatten().tolist() == [1.0, 2.0, -10.0, 12.0]


@pytest.mark.parametrize("std", [0.0, 1e-45, 1e-39])
def test_dead_channel_gives_zero_whatever_number_it_shows(std: float) -> None:
    h = torch.tensor([0.0, 1e30, torch.inf, 7.0]).reshape(1, 2, 2, 1)
    z = zscore(h, torch.zeros(2), torch.tensor([std, 1.0]))
    assert z[0, 0].flatten().tolist() == [0.0, 0.0]
    assert z[0, 1].flatten().tolist() == [torch.inf, 7.0]


def test_the_smallest_deviation_is_that_of_a_living_channel() -> None:
    std = torch.tensor([SMALLEST_STD, SMALLEST_STD]).nextafter(torch.tensor([0.0, 1.0]))
    std = torch.cat([std, torch.tensor([SMALLEST_STD])])
    z = zscore(std.reshape(1, 3, 1, 1), torch.zeros(3), std)
    assert z.flatten().tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_dead_channel_hides_nothing_that_is_no_number(value: float) -> None:
    h = torch.tensor([0.0, value]).reshape(1, 1, 2, 1)
    z = zscore(h, torch.zeros(1), torch.zeros(1)).flatten()
    assert z[0] == 0
    assert z[1].isnan()


def test_gradient_of_a_dead_channel_is_finite() -> None:
    h = torch.ones(1, 2, 2, 2, requires_grad=True)
    zscore(h, torch.zeros(2), torch.tensor([0.0, 2.0])).sum().backward()
    assert h.grad is not None
    assert h.grad[0, 0].eq(0).all()
    assert h.grad[0, 1].eq(0.5).all()

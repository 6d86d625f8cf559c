from __future__ import annotations

import torch

from zmask_export.defense.zscore import zscore


def test_value_is_the_distance_to_the_mean_in_deviations() -> None:
    h = torch.tensor([3.0, 5.0, -1.0, 10.0]).reshape(1, 2, 1, 2)
    z = zscore(h, torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.5]))
    assert z.flatten().tolist() == [1.0, 2.0, -10.0, 12.0]


def test_dead_channel_gives_zero_whatever_it_shows() -> None:
    h = torch.tensor([0.0, 1e30, torch.inf, 7.0]).reshape(1, 2, 2, 1)
    z = zscore(h, torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert z[0, 0].flatten().tolist() == [0.0, 0.0]
    assert z[0, 1].flatten().tolist() == [torch.inf, 7.0]


def test_gradient_of_a_dead_channel_is_finite() -> None:
    h = torch.ones(1, 2, 2, 2, requires_grad=True)
    zscore(h, torch.zeros(2), torch.tensor([0.0, 2.0])).sum().backward()
    assert h.grad is not None
    assert h.grad[0, 0].eq(0).all()
    assert h.grad[0, 1].eq(0.5).all()

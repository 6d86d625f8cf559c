"""What holds of every registered segmentation network."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zmask_export.errors import ShapeError
from zmask_export.models import registry, taps
from zmask_export.models.registry import ModelEntry
from zmask_export.models.weights import random_network

NAMES = registry.names("segmentation")
ENTRIES = [registry.get(name) for name in NAMES]
each = pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)


@functools.cache
def _random(name: str) -> nn.Module:
    return random_network(registry.get(name))


@functools.cache
def _shapes(name: str) -> nn.Module:
    """The network without values: gives shapes at once, whatever the size."""
    with torch.device("meta"):
        return registry.get(name).build(19).eval()


@each
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (360, 480), (130, 64)])
def test_logits_have_the_size_of_the_image(entry: ModelEntry, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        logits = _random(entry.name)(torch.rand(1, 3, *size))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (1, 11, *size)
    assert logits.isfinite().all()
    assert logits.std() > 0


@settings(max_examples=15, deadline=None)
@given(
    entry=st.sampled_from(ENTRIES), excess=st.tuples(st.integers(0, 2000), st.integers(0, 2000)),
    batch=st.integers(1, 3),
)  # fmt: skip
def test_any_size_fits(entry: ModelEntry, excess: tuple[int, int], batch: int) -> None:
    height, width = (entry.min_side + side for side in excess)
    logits = _shapes(entry.name)(torch.empty(batch, 3, height, width, device="meta"))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (batch, 19, height, width)


@each
@pytest.mark.parametrize("channels", [1, 4])
def test_another_number_of_channels_is_refused(entry: ModelEntry, channels: int) -> None:
    with pytest.raises(ShapeError, match=r"\(N, 3, H, W\)"):
        _random(entry.name)(torch.zeros(1, channels, 64, 64))


@each
def test_a_smaller_image_is_refused(entry: ModelEntry) -> None:
    side = entry.min_side
    for shape in ((1, 3, side - 1, side), (1, 3, side, side - 1), (3, side, side)):
        with pytest.raises(ShapeError, match=f"at least {side}") as caught:
            _random(entry.name)(torch.zeros(shape))
        assert str(shape) in caught.value.what
    with torch.inference_mode():
        logits = _random(entry.name)(torch.zeros(1, 3, side, side))
    assert logits.shape == (1, 11, side, side)


@each
def test_an_image_does_not_see_the_others_of_its_batch(entry: ModelEntry) -> None:
    batch = torch.rand(3, 3, 65, 97, generator=torch.Generator().manual_seed(0))
    other = batch.clone()
    other[1:] = 0
    network = _random(entry.name)
    with torch.inference_mode():
        together, changed, alone = network(batch), network(other), network(batch[:1])
    assert torch.equal(together[0], changed[0])
    assert not torch.equal(together[1], changed[1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-4)


@each
def test_every_tap_of_table_1_is_a_layer_that_runs(entry: ModelEntry) -> None:
    assert {*entry.shallow, *entry.deep} <= entry.taps.keys()
    with taps.Taps(_shapes(entry.name), entry.taps) as found:
        _shapes(entry.name)(torch.empty(1, 3, 1024, 2048, device="meta"))
    assert found.features.keys() == entry.taps.keys()


@each
def test_training_gives_a_main_map_and_auxiliary_ones(entry: ModelEntry) -> None:
    with torch.device("meta"):
        network = entry.build_for_training().train()
    maps = network(torch.empty(2, 3, 97, 130, device="meta"))
    assert len(maps) >= 2
    assert {tuple(m.shape[:2]) for m in maps} == {(2, 11)}


@each
def test_every_parameter_is_used_in_training(entry: ModelEntry) -> None:
    network = entry.build_for_training().train()
    sum(m.square().mean() for m in network(torch.rand(2, 3, 97, 130))).backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None]
    assert unused == []

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zmask_export.models import registry
from zmask_export.models.icnet import ICNet
from zmask_export.models.taps import Taps
from zmask_export.models.weights import random_network

# Written down from pytorch-semseg's ICNet: (channels out, channels in, height, width).
PUBLISHED = {
    "convbnrelu1_1.cbr_unit.0.weight": (32, 3, 3, 3),
    "convbnrelu1_3.cbr_unit.1.running_mean": (64,),
    "res_block2.layers.0.cbr1.cbr_unit.0.weight": (32, 64, 1, 1),
    "res_block2.layers.0.cb4.cb_unit.1.running_var": (128,),
    "res_block2.layers.2.cbr2.cbr_unit.0.weight": (32, 32, 3, 3),
    "res_block3_conv.layers.0.cb4.cb_unit.0.weight": (256, 128, 1, 1),
    "res_block3_identity.layers.2.cb3.cb_unit.0.weight": (256, 64, 1, 1),
    "res_block4.layers.5.cbr2.cbr_unit.0.weight": (128, 128, 3, 3),
    "res_block5.layers.0.cb4.cb_unit.0.weight": (1024, 512, 1, 1),
    "res_block5.layers.2.cb3.cb_unit.1.bias": (1024,),
    "conv5_4_k1.cbr_unit.0.weight": (256, 1024, 1, 1),
    "convbnrelu1_sub1.cbr_unit.0.weight": (32, 3, 3, 3),
    "convbnrelu2_sub1.cbr_unit.0.weight": (32, 32, 3, 3),
    "convbnrelu3_sub1.cbr_unit.1.weight": (64,),
    "cff_sub24.low_dilated_conv_bn.cb_unit.0.weight": (128, 256, 3, 3),
    "cff_sub24.high_proj_conv_bn.cb_unit.0.weight": (128, 256, 1, 1),
    "cff_sub12.high_proj_conv_bn.cb_unit.0.weight": (128, 64, 1, 1),
    "cff_sub12.low_classifier_conv.weight": (19, 128, 1, 1),
    "cff_sub12.low_classifier_conv.bias": (19,),
    "classification.weight": (19, 128, 1, 1),
    "classification.bias": (19,),
}
ABSENT = (
    "res_block2.layers.1.cb4.cb_unit.0.weight",
    "res_block3_conv.layers.1.cbr1.cbr_unit.0.weight",
    "res_block3_identity.layers.3.cbr1.cbr_unit.0.weight",
    "convbnrelu1_1.cbr_unit.0.bias",
)


@pytest.fixture(scope="module")
def network() -> ICNet:
    network = random_network(registry.get("icnet"))
    assert isinstance(network, ICNet)
    return network


@pytest.fixture(scope="module")
def shapes() -> ICNet:
    """The network without values: gives shapes at once, whatever the size."""
    with torch.device("meta"):
        return ICNet(19).eval()


def test_parameters_have_the_names_and_shapes_of_published_weights(shapes: ICNet) -> None:
    state = shapes.state_dict()
    assert {key: tuple(state[key].shape) for key in PUBLISHED} == PUBLISHED
    assert not state.keys() & set(ABSENT)


@pytest.mark.parametrize("size", [(1025, 2049), (1024, 2048)])
def test_taps_have_the_papers_sizes(shapes: ICNet, size: tuple[int, int]) -> None:
    with Taps(shapes, registry.get("icnet").taps) as taps:
        shapes(torch.empty(1, 3, *size, device="meta"))
    assert {tap: tuple(value.shape[1:]) for tap, value in taps.features.items()} == {
        "convbnrelu1_2": (32, 257, 513),
        "res_block2": (128, 129, 257),
        "res_block5": (1024, 33, 65),
        "conv5_4_k1": (256, 33, 65),
    }


def test_training_gives_three_branches_of_logits(network: ICNet) -> None:
    network.train()
    try:
        maps = network(torch.rand(2, 3, 97, 130))
    finally:
        network.eval()
    assert [tuple(m.shape) for m in maps] == [(2, 11, 25, 33), (2, 11, 13, 17), (2, 11, 7, 9)]


def test_auxiliary_heads_do_not_run_outside_training(network: ICNet) -> None:
    paths = {"aux24": "cff_sub24.low_classifier_conv", "aux12": "cff_sub12.low_classifier_conv"}
    with torch.inference_mode(), Taps(network, paths) as taps:
        network(torch.rand(1, 3, 64, 64))
    assert taps.features == {}


@settings(max_examples=30, deadline=None)
@given(height=st.integers(3, 40), width=st.integers(3, 70))
def test_pyramid_pooling_averages_over_the_whole_map(
    network: ICNet, height: int, width: int
) -> None:
    flat = network.pyramid_pooling(torch.full((1, 1, height, width), 2.0))
    torch.testing.assert_close(flat, torch.full_like(flat, 10.0))
    x = torch.zeros(1, 1, height, width, requires_grad=True)
    (network.pyramid_pooling(x) - x).sum().backward()
    assert x.grad is not None
    assert (x.grad > 0).all()


def test_pyramid_pooling_uses_the_published_windows(network: ICNet) -> None:
    # In the original, the first of six bins a side averages 8 x 15 positions of a 33 x 65 map.
    x = torch.zeros(1, 1, 33, 65)
    x[..., :8, :15] = 1
    # The corner is in every bin: itself, 6, 3, 2 and 1 bins a side.
    shares = [1.0, 1.0, 8 * 15 / (13 * 25), 8 * 15 / (17 * 33), 8 * 15 / (33 * 65)]
    assert float(network.pyramid_pooling(x)[0, 0, 0, 0]) == pytest.approx(sum(shares), rel=1e-6)

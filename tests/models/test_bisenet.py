from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from zmask_export.models import registry
from zmask_export.models.bisenet import BiSeNet
from zmask_export.models.taps import Taps
from zmask_export.models.weights import load_network, random_network

ENTRY = registry.get("bisenet")

# Written down from TorchSeg's BiSeNet with Xception39: (channels out, channels in, height, width).
PUBLISHED = {
    "context_path.conv1.conv.weight": (8, 3, 3, 3),
    "context_path.conv1.bn.running_mean": (8,),
    "context_path.layer1.0.proj.conv1.weight": (8, 1, 3, 3),
    "context_path.layer1.0.proj.point_wise_cbr.conv.weight": (64, 8, 1, 1),
    "context_path.layer1.0.residual_branch.0.conv1.weight": (8, 1, 3, 3),
    "context_path.layer1.0.residual_branch.0.point_wise_cbr.conv.weight": (16, 8, 1, 1),
    "context_path.layer1.3.residual_branch.2.point_wise_cbr.bn.weight": (64,),
    "context_path.layer2.7.residual_branch.1.point_wise_cbr.conv.weight": (32, 32, 1, 1),
    "context_path.layer3.0.proj.conv1.weight": (128, 1, 3, 3),
    "context_path.layer3.3.residual_branch.2.point_wise_cbr.conv.weight": (256, 64, 1, 1),
    "spatial_path.conv_7x7.conv.weight": (64, 3, 7, 7),
    "spatial_path.conv_3x3_1.conv.weight": (64, 64, 3, 3),
    "spatial_path.conv_3x3_2.bn.bias": (64,),
    "spatial_path.conv_1x1.conv.weight": (128, 64, 1, 1),
    "global_context.1.conv.weight": (128, 256, 1, 1),
    "global_context.1.bn.weight": (128,),
    "arms.0.conv_3x3.conv.weight": (128, 256, 3, 3),
    "arms.1.conv_3x3.conv.weight": (128, 128, 3, 3),
    "arms.1.channel_attention.1.conv.weight": (128, 128, 1, 1),
    "arms.1.channel_attention.1.bn.weight": (128,),
    "refines.1.conv.weight": (128, 128, 3, 3),
    "ffm.conv_1x1.conv.weight": (256, 256, 1, 1),
    "ffm.channel_attention.1.conv.weight": (256, 256, 1, 1),
    "ffm.channel_attention.2.conv.weight": (256, 256, 1, 1),
    "heads.0.conv_3x3.conv.weight": (128, 128, 3, 3),
    "heads.1.conv_1x1.weight": (19, 128, 1, 1),
    "heads.2.conv_3x3.conv.weight": (64, 256, 3, 3),
    "heads.2.conv_1x1.weight": (19, 64, 1, 1),
    "heads.2.conv_1x1.bias": (19,),
}
ABSENT = (
    "context_path.layer1.1.proj.conv1.weight",
    "ffm.channel_attention.1.bn.weight",
    "spatial_path.conv_7x7.conv.bias",
)


@pytest.fixture(scope="module")
def shapes() -> BiSeNet:
    with torch.device("meta"):
        return BiSeNet(19).eval()


def test_parameters_have_the_names_and_shapes_of_published_weights(shapes: BiSeNet) -> None:
    state = shapes.state_dict()
    assert {key: tuple(state[key].shape) for key in PUBLISHED} == PUBLISHED
    assert not state.keys() & set(ABSENT)
    assert {key.split(".")[0] for key in state} == {key.split(".")[0] for key in PUBLISHED}


def test_taps_have_their_places_at_the_papers_size(shapes: BiSeNet) -> None:
    with Taps(shapes, ENTRY.taps) as taps:
        shapes(torch.empty(1, 3, 1024, 2048, device="meta"))
    assert {tap: tuple(value.shape[1:]) for tap, value in taps.features.items()} == {
        "spatial-path-conv-7x7": (64, 512, 1024),
        "spatial-path-conv-1x1": (128, 128, 256),
        "ct0": (256, 32, 64),
        "ct1": (128, 64, 128),
        "ct2": (64, 128, 256),
    }


def test_published_weights_load_with_the_prefix_of_parallel_training(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = BiSeNet(19).eval()
    path = tmp_path / "bisenet.pth"
    torch.save({"model": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    loaded, classes = load_network(ENTRY, path)
    assert classes == 19
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0)


def test_the_global_context_is_the_same_everywhere() -> None:
    """Resizing a map of one position, as the original does, equals broadcasting it."""
    one = torch.rand(2, 5, 1, 1)
    resized = F.interpolate(one, (3, 4), mode="bilinear", align_corners=True)
    torch.testing.assert_close(resized, one.expand(2, 5, 3, 4), rtol=0, atol=0)


def test_logits_are_enlarged_with_aligned_corners() -> None:
    network = random_network(ENTRY)
    with torch.inference_mode(), Taps(network, {"head": "heads.2"}) as taps:
        logits = network(torch.rand(1, 3, 96, 128))
    head = taps.features["head"]
    assert tuple(head.shape[2:]) == (12, 16)
    torch.testing.assert_close(logits[..., ::95, ::127], head[..., ::11, ::15])

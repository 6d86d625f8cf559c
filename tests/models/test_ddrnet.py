from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from zmask_export.models import registry
from zmask_export.models.ddrnet import DDRNet
from zmask_export.models.taps import Taps
from zmask_export.models.weights import fingerprint, load_network, random_network

ENTRY = registry.get("ddrnet")

# Written down from the authors' DDRNet-23-slim: (channels out, channels in, height, width).
PUBLISHED = {
    "conv1.0.weight": (32, 3, 3, 3),
    "conv1.0.bias": (32,),
    "conv1.3.weight": (32, 32, 3, 3),
    "conv1.4.running_mean": (32,),
    "layer1.0.conv1.weight": (32, 32, 3, 3),
    "layer2.0.conv1.weight": (64, 32, 3, 3),
    "layer2.0.downsample.0.weight": (64, 32, 1, 1),
    "layer2.0.downsample.1.weight": (64,),
    "layer3.1.conv2.weight": (128, 128, 3, 3),
    "layer4.1.bn2.running_var": (256,),
    "compression3.0.weight": (64, 128, 1, 1),
    "compression4.1.weight": (64,),
    "down3.0.weight": (128, 64, 3, 3),
    "down4.0.weight": (128, 64, 3, 3),
    "down4.3.weight": (256, 128, 3, 3),
    "down4.4.bias": (256,),
    "layer3_.0.conv1.weight": (64, 64, 3, 3),
    "layer4_.1.conv2.weight": (64, 64, 3, 3),
    "layer5_.0.conv1.weight": (64, 64, 1, 1),
    "layer5_.0.conv3.weight": (128, 64, 1, 1),
    "layer5_.0.downsample.0.weight": (128, 64, 1, 1),
    "layer5.0.conv2.weight": (256, 256, 3, 3),
    "layer5.0.bn3.weight": (512,),
    "spp.scale0.0.weight": (512,),
    "spp.scale0.2.weight": (128, 512, 1, 1),
    "spp.scale1.1.weight": (512,),
    "spp.scale3.3.weight": (128, 512, 1, 1),
    "spp.scale4.3.weight": (128, 512, 1, 1),
    "spp.process4.2.weight": (128, 128, 3, 3),
    "spp.compression.2.weight": (128, 640, 1, 1),
    "spp.shortcut.2.weight": (128, 512, 1, 1),
    "final_layer.bn1.weight": (128,),
    "final_layer.conv1.weight": (64, 128, 3, 3),
    "final_layer.conv2.weight": (19, 64, 1, 1),
    "final_layer.conv2.bias": (19,),
}
ABSENT = ("layer1.0.downsample.0.weight", "layer1.0.conv1.bias", "seghead_extra.conv1.weight")


@pytest.fixture(scope="module")
def shapes() -> DDRNet:
    with torch.device("meta"):
        return DDRNet(19).eval()


def test_parameters_have_the_names_and_shapes_of_published_weights(shapes: DDRNet) -> None:
    state = shapes.state_dict()
    assert {key: tuple(state[key].shape) for key in PUBLISHED} == PUBLISHED
    assert not state.keys() & set(ABSENT)


def test_taps_have_their_places_at_the_papers_size(shapes: DDRNet) -> None:
    with Taps(shapes, ENTRY.taps) as taps:
        shapes(torch.empty(1, 3, 1024, 2048, device="meta"))
    assert {tap: tuple(value.shape[1:]) for tap, value in taps.features.items()} == {
        "rb1": (32, 256, 512),
        "rb2": (64, 128, 256),
        "rbb1": (128, 128, 256),
        "rbb2": (512, 16, 32),
    }


def test_taps_are_sums_before_their_relu() -> None:
    network = random_network(ENTRY)
    with torch.inference_mode(), Taps(network, ENTRY.taps) as taps:
        network(torch.rand(1, 3, 96, 128))
    assert all((value < 0).any() for value in taps.features.values())


def test_checkpoints_of_the_public_training_code_load(tmp_path: Path) -> None:
    """Wrapped twice, with the weights of the loss and the head that serves training only."""
    torch.manual_seed(1)
    network = DDRNet(19, auxiliary=True)
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    state["loss.criterion.weight"] = torch.ones(19)
    path = tmp_path / "ddrnet.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    loaded, classes = load_network(ENTRY, path)
    assert classes == 19
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), network.eval()(x), rtol=0, atol=0)
    torch.save(loaded.state_dict(), path)
    assert fingerprint(load_network(ENTRY, path)[0]) == fingerprint(loaded)


def test_logits_are_enlarged_with_half_pixel_centres() -> None:
    network = random_network(ENTRY)
    with torch.inference_mode(), Taps(network, {"head": "final_layer"}) as taps:
        logits = network(torch.rand(1, 3, 96, 128))
    head = taps.features["head"]
    assert tuple(head.shape[2:]) == (12, 16)
    torch.testing.assert_close(logits, F.interpolate(head, scale_factor=8, mode="bilinear"))

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models.detection import RetinaNet

from zmask_export import presets
from zmask_export.data.regions import OBJECTS, RegionFolder
from zmask_export.evaluate.average_precision import Truths, judge
from zmask_export.models.bisenet import BiSeNet
from zmask_export.models.detection import demo
from zmask_export.runtime.detections import Detections

CAMVID = Path(__file__).parents[4] / "shared" / "data" / "camvid"
WEIGHTS = presets.folder() / "camvid-retinanet" / "weights.safetensors"
PADDED = (384, 480)


@pytest.fixture(scope="module")
def network() -> RetinaNet:
    torch.manual_seed(0)
    return demo.camvid_retinanet()


def test_images_of_its_size_are_only_normalised_and_padded(network: RetinaNet) -> None:
    image = torch.rand(3, *demo.SIZE)
    batch, _ = network.transform([image])
    assert batch.tensors.shape == (1, 3, *PADDED)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    torch.testing.assert_close(batch.tensors[0, :, :360], (image - mean) / std)
    assert not batch.tensors[0, :, 360:].any()


def test_the_body_is_bisenet_up_to_its_classifier(network: RetinaNet) -> None:
    bisenet = BiSeNet(11).eval()
    bisenet.load_state_dict(network.backbone.body.state_dict(), strict=False)
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        maps = network.backbone.body(image)
        logits = bisenet.heads[2](maps["0"])
        expected = bisenet(image)
    enlarged = torch.nn.functional.interpolate(
        logits, size=(96, 128), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(enlarged, expected)


def test_layers_have_the_maps_that_are_written_down(network: RetinaNet) -> None:
    """Every path of the module's docstring: channels, and the part of the image's side that a map has."""
    described = {
        "backbone.body.spatial_path.conv_7x7": (64, 2),
        "backbone.body.spatial_path.conv_1x1": (128, 8),
        "backbone.body.context_path.layer1": (64, 8),
        "backbone.body.context_path.layer2": (128, 16),
        "backbone.body.context_path.layer3": (256, 32),
        "backbone.fpn.layer_blocks.0": (64, 8),
        "backbone.fpn.layer_blocks.1": (64, 16),
        "backbone.fpn.layer_blocks.2": (64, 32),
    }
    seen = {}
    hooks = [
        network.get_submodule(path).register_forward_hook(
            lambda _m, _i, out, path=path: seen.update({path: tuple(out.shape[1:])})
        )
        for path in described
    ]
    with torch.no_grad():
        network([torch.rand(3, *demo.SIZE)])
    for hook in hooks:
        hook.remove()
    assert seen == {p: (c, PADDED[0] // s, PADDED[1] // s) for p, (c, s) in described.items()}
    assert demo.__doc__ is not None
    named = set(re.findall(r"backbone\.[\w.]+", demo.__doc__))
    assert named <= set(described)


def test_anchors_lie_where_their_maps_positions_do(network: RetinaNet) -> None:
    """Their sides are 16 to 200 pixels; a map's centres are one stride apart, up to the image's end."""
    batch, _ = network.transform([torch.rand(3, *demo.SIZE)])
    with torch.no_grad():
        maps = list(network.backbone(batch.tensors).values())
    (anchors,) = network.anchor_generator(batch, maps)
    per_place = network.anchor_generator.num_anchors_per_location()
    assert per_place == [9, 9, 9]
    sides = ((anchors[:, 2:] - anchors[:, :2]).prod(1)).sqrt()
    assert (sides.min().item(), sides.max().item()) == pytest.approx((16, 200), abs=2)
    start = 0
    for each, stride in zip(maps, (8, 16, 32), strict=True):
        places = each.shape[2] * each.shape[3]
        centres = ((anchors[:, :2] + anchors[:, 2:]) / 2)[start : start + places * 9 : 9]
        last = [PADDED[1] - stride, PADDED[0] - stride]
        assert centres[0].tolist() == [0, 0]
        assert centres[-1].tolist() == last
        start += places * 9
    assert start == len(anchors)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_number_of_classes_can_be_chosen(classes: int) -> None:
    network = demo.camvid_retinanet(classes)
    assert network.head.classification_head.cls_logits.out_channels == 9 * classes
    assert not network.training


def test_it_can_be_trained(network: RetinaNet) -> None:
    network = demo.camvid_retinanet().train()
    target = {"boxes": torch.tensor([[20.0, 30.0, 60.0, 70.0]]), "labels": torch.tensor([1])}
    losses = network([torch.rand(3, *demo.SIZE)] * 2, [target] * 2)
    sum(losses.values()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for name, p in network.named_parameters()
        if p.requires_grad
    )


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs CamVid beside the repository")
def test_the_shipped_weights_find_camvids_objects() -> None:
    assert WEIGHTS.stat().st_size < 5e6
    network = demo.camvid_retinanet()
    missing, unknown = network.load_state_dict(load_file(WEIGHTS), strict=False)
    assert unknown == []
    assert {name.rpartition(".")[2] for name in missing} <= {"num_batches_tracked"}
    truths, found = [], []
    for sample in RegionFolder(CAMVID, "val", size=demo.SIZE):
        image = torch.from_numpy(sample.image.transpose(2, 0, 1).copy()).float() / 255
        with torch.no_grad():
            result = network([image])[0]
        truths.append(Truths.of(sample))
        found.append(Detections(*(result[k].numpy() for k in ("boxes", "scores", "labels"))))
    judged = judge(truths, found, OBJECTS)
    assert judged.at_50 is not None
    assert judged.at_50 > 0.3

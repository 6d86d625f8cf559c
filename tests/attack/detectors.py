"""Tiny detectors by torchvision's own API, and pictures of bright rectangles for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from tests.conftest import Make
from zmask_export.data.coco import BoxSample
from zmask_export.models.detection.network import DetectorNetwork
from zmask_export.spec import DefenseSpec, Preprocess

SIZE = (64, 80)
CLASSES = 4
KINDS = ("retinanet", "ssd", "fasterrcnn")
STEPS = {"retinanet": 60, "ssd": 60, "fasterrcnn": 200}
"""Enough to find rectangles; proposals that nearly tie want more."""
LOSSES = {
    "retinanet": {"classification", "bbox_regression"},
    "ssd": {"classification", "bbox_regression"},
    "fasterrcnn": {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"},
}
PREPROCESS = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
PATHS = {"near": "backbone.near", "far": "backbone.far"}
DEFENSE = DefenseSpec(
    shallow=("near",),
    deep=("near", "far"),
    shallow_kernels=((8, 10), (3, 4)),
    deep_kernels=((8, 10),),
    grid=(18, 21),
    registration="aligned",
)
_PIXELS = {"image_mean": list(PREPROCESS.mean), "image_std": list(PREPROCESS.std)}
_SIDES = {"min_size": SIZE[0], "max_size": SIZE[1], **_PIXELS}
_COLOURS = ((230, 60, 60), (60, 220, 60), (70, 70, 240))


class Backbone(nn.Module):
    """Two maps, 16 channels at 1/4 and 1/8; batch norms both foldable and not, and a dropout."""

    def __init__(self, out_channels: int | list[int] = 16) -> None:
        super().__init__()
        self.near = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.mid = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 16, 5, 2, 6, 3), nn.ReLU())
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.1)
        self.far = nn.Sequential(nn.Conv2d(16, 16, 5, 2, 4, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        middle = self.drop(self.norm(self.mid(self.near(x))))
        return OrderedDict([("0", middle), ("1", self.far(middle))])


def detector(kind: str, seed: int = 0) -> nn.Module:
    """A detector of :data:`CLASSES` classes with seeded random weights, in eval mode."""
    torch.manual_seed(seed)
    if kind == "ssd":
        boxes = DefaultBoxGenerator([[2], [2]], scales=[0.15, 0.3, 0.5], steps=[4, 8])
        size = (SIZE[1], SIZE[0])
        network: nn.Module = SSD(Backbone([16, 16]), boxes, size, CLASSES, **_PIXELS)
    else:
        anchors = AnchorGenerator(((10, 14), (20, 28)), ((0.6, 1.0, 1.7),) * 2)
        if kind == "retinanet":
            head = RetinaNetHead(16, 6, CLASSES)
            network = RetinaNet(Backbone(), CLASSES, anchor_generator=anchors, head=head, **_SIDES)
        else:
            network = FasterRCNN(
                Backbone(),
                rpn_anchor_generator=anchors,
                box_roi_pool=MultiScaleRoIAlign(["0", "1"], 3, 2),
                box_head=TwoMLPHead(16 * 9, 32),
                box_predictor=FastRCNNPredictor(32, CLASSES),
                rpn_pre_nms_top_n_train=60,
                rpn_post_nms_top_n_train=40,
                rpn_batch_size_per_image=32,
                box_batch_size_per_image=24,
                **_SIDES,
            )
    generator = torch.Generator().manual_seed(seed)
    for value, deviation in _normal(network):
        value.normal_(0, deviation, generator=generator)
    for name, value in network.state_dict().items():
        if name.endswith("classification_head.cls_logits.bias"):
            value.fill_(-2.5)  # RetinaNet begins with -4.6, which detects nothing
    return network.eval()


def _normal(network: nn.Module) -> Iterator[tuple[Tensor, float]]:
    """What begins with normal numbers, and their standard deviation."""
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            yield value, 0.1
        elif value.ndim == 4 and not name.startswith("backbone"):
            yield value, 0.05


def bare(kind: str, seed: int = 0) -> DetectorNetwork:
    """A detector with its taps near and far."""
    return DetectorNetwork(detector(kind, seed), PREPROCESS, dict(PATHS))


def picture(seed: int, count: int | None = None) -> BoxSample:
    """Dim noise with one to three bright rectangles, whose colour is their class."""
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 120, (*SIZE, 3), dtype=np.uint8)
    boxes, labels = [], []
    for _ in range(int(rng.integers(1, 4)) if count is None else count):
        h, w = rng.integers(10, 25, 2)
        top, left = rng.integers(0, SIZE[0] - h), rng.integers(0, SIZE[1] - w)
        label = int(rng.integers(1, CLASSES))
        image[top : top + h, left : left + w] = _COLOURS[label - 1]
        boxes.append((left, top, left + w, top + h))
        labels.append(label)
    return BoxSample(
        Path(f"{seed}.png"),
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.zeros(len(labels), np.bool_),
        np.zeros((0, 4), np.float32),
    )


def train(network: nn.Module, steps: int, seed: int = 0) -> None:
    """Teach a detector the rectangles; it comes back in eval mode.

    Alike on every processor: in float64, where what rounds otherwise stays below what float32 can tell,
    and from NumPy's normal numbers, for torch's are others with other vector instructions.
    """
    rng = np.random.default_rng(seed)
    for value, deviation in _normal(network):
        value.copy_(torch.from_numpy(deviation * rng.standard_normal(value.shape)))
    torch.manual_seed(seed)
    network.double()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    for step in range(steps):
        samples = [picture(10_000 + 8 * step + k) for k in range(8)]
        images = [torch.from_numpy(s.image).permute(2, 0, 1).double() / 255 for s in samples]
        targets = [
            {"boxes": torch.from_numpy(s.boxes).double(), "labels": torch.from_numpy(s.labels)}
            for s in samples
        ]
        optimizer.zero_grad()
        sum(network(images, targets).values()).backward()
        optimizer.step()
    network.float().eval()


def taught(kind: str, steps: int, make_once: Make) -> nn.Module:
    """A detector after :func:`train`; of a session's equal ones the first alone is trained."""

    def make(folder: Path) -> None:
        network = detector(kind)
        train(network, steps)
        folder.mkdir()
        torch.save(network.state_dict(), folder / "weights.pt")

    weights = make_once(f"taught/{kind}-{steps}", make) / "weights.pt"
    network = detector(kind).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network

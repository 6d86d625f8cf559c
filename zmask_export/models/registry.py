"""The networks that come with the package: one entry each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zmask_export.errors import UsageError
from zmask_export.models import bisenet, ddrnet, icnet
from zmask_export.models.detection import builders, demo, published
from zmask_export.spec import PREPROCESS, Preprocess, Task


@dataclass(frozen=True)
class ModelEntry:
    """A registered network.

    Attributes:
        name: what ``--model`` takes.
        factory: builds the network with random weights for a number of classes.
        classes: number of classes of the shipped demo weights.
        preprocess: normalisation of the shipped demo weights.
        taps: tap name (Table 1) to module path.
        shallow: Table 1's set S.
        deep: Table 1's set D.
        min_side: smallest input side in pixels.
        classes_from: key of the weight whose first dimension counts the classes.
        classes_each: how often that dimension counts each class (a detector's anchors a position).
        task: what it predicts.
        class_names: names of the classes of the shipped weights, background first in a detector's.
        unused: prefixes of keys that public checkpoints carry and a prediction never uses.
        training: builds it with heads that serve training only, where ``factory`` leaves them out.
    """

    name: str
    factory: Callable[[int], nn.Module]
    classes: int
    preprocess: Preprocess
    taps: dict[str, str]
    shallow: tuple[str, ...]
    deep: tuple[str, ...]
    min_side: int
    classes_from: str
    classes_each: int = 1
    task: Task = "segmentation"
    class_names: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    training: Callable[[int], nn.Module] | None = None

    def build(self, classes: int | None = None) -> nn.Module:
        """The network with random weights."""
        return self.factory(self.classes if classes is None else classes)

    def build_for_training(self) -> nn.Module:
        """The same with all auxiliary heads."""
        return (self.training or self.factory)(self.classes)


_ICNET_TAPS = ("convbnrelu1_2", "res_block2", "res_block5", "conv5_4_k1")

_RESNET_TAPS = {
    "backbone-body-conv1": "backbone.body.conv1",
    "backbone-body-relu": "backbone.body.relu",
    "backbone-body-layer1-0-conv1": "backbone.body.layer1.0.conv1",
    "backbone-layer4": "backbone.body.layer4",
}
_RESNET_SHALLOW = ("backbone-body-relu", "backbone-body-conv1", "backbone-body-layer1-0-conv1")
_RESNET_DEEP = ("backbone-body-conv1", "backbone-layer4", "backbone-body-layer1-0-conv1")

_ENTRIES = {
    "bisenet": ModelEntry(
        name="bisenet",
        factory=bisenet.BiSeNet,
        classes=11,
        preprocess=PREPROCESS["imagenet"],
        taps={
            "spatial-path-conv-7x7": "spatial_path.conv_7x7",
            "spatial-path-conv-1x1": "spatial_path.conv_1x1",
            "ct0": "context_path.layer3",
            "ct1": "context_path.layer2",
            "ct2": "context_path.layer1",
        },
        shallow=("spatial-path-conv-1x1", "spatial-path-conv-7x7", "ct2"),
        deep=("ct1", "ct2", "spatial-path-conv-1x1"),
        min_side=bisenet.MIN_SIDE,
        classes_from="heads.2.conv_1x1.weight",
    ),
    "camvid-retinanet": ModelEntry(
        name="camvid-retinanet",
        factory=demo.camvid_retinanet,
        classes=4,
        preprocess=PREPROCESS["imagenet"],
        taps={
            "spatial-7x7": "backbone.body.spatial_path.conv_7x7",
            "spatial-1x1": "backbone.body.spatial_path.conv_1x1",
            "context-8": "backbone.body.context_path.layer1",
            "context-16": "backbone.body.context_path.layer2",
            "context-32": "backbone.body.context_path.layer3",
        },
        shallow=("spatial-7x7", "context-8"),
        deep=("context-8", "context-16"),
        min_side=32,
        classes_from="head.classification_head.cls_logits.weight",
        classes_each=9,
        task="detection",
        class_names=("background", "car", "pedestrian", "bicyclist"),
    ),
    "ddrnet": ModelEntry(
        name="ddrnet",
        factory=ddrnet.DDRNet,
        classes=11,
        preprocess=PREPROCESS["imagenet"],
        taps={"rb1": "layer1", "rb2": "layer2", "rbb1": "layer5_", "rbb2": "layer5"},
        shallow=("rbb2", "rbb1", "rb1", "rb2"),
        deep=("rbb2", "rbb1"),
        min_side=ddrnet.MIN_SIDE,
        classes_from="final_layer.conv2.weight",
        # Training leaves an extra head and the weights of its loss in the checkpoint.
        unused=("seghead_extra.", "loss."),
        training=functools.partial(ddrnet.DDRNet, auxiliary=True),
    ),
    "fasterrcnn": ModelEntry(
        name="fasterrcnn",
        factory=builders.fasterrcnn,
        classes=91,
        preprocess=PREPROCESS["imagenet"],
        taps=_RESNET_TAPS,
        shallow=_RESNET_SHALLOW,
        deep=_RESNET_DEEP,
        min_side=64,
        classes_from="roi_heads.box_predictor.cls_score.weight",
        task="detection",
        class_names=published.CLASSES,
    ),
    "icnet": ModelEntry(
        name="icnet",
        factory=icnet.ICNet,
        classes=11,
        preprocess=PREPROCESS["imagenet"],
        taps={name: name for name in _ICNET_TAPS},
        shallow=("res_block5", "convbnrelu1_2", "res_block2"),
        deep=("res_block5", "conv5_4_k1", "convbnrelu1_2"),
        min_side=icnet.MIN_SIDE,
        classes_from="classification.weight",
        # The port stores pyramid-pooling convolutions that ICNet, unlike PSPNet, never calls.
        unused=("pyramid_pooling.path_module_list.",),
    ),
    "retinanet": ModelEntry(
        name="retinanet",
        factory=builders.retinanet,
        classes=91,
        preprocess=PREPROCESS["imagenet"],
        taps=_RESNET_TAPS,
        shallow=_RESNET_SHALLOW,
        deep=_RESNET_DEEP,
        min_side=128,
        classes_from="head.classification_head.cls_logits.weight",
        classes_each=9,
        task="detection",
        class_names=published.CLASSES,
    ),
    "ssd300": ModelEntry(
        name="ssd300",
        factory=builders.ssd300,
        classes=91,
        preprocess=PREPROCESS["vgg"],
        taps={f"backbone-extra-0-{index}": f"backbone.extra.0.{index}" for index in (1, 3, 5)},
        shallow=("backbone-extra-0-3", "backbone-extra-0-1"),
        deep=("backbone-extra-0-3", "backbone-extra-0-5"),
        min_side=64,
        classes_from="head.classification_head.module_list.0.weight",
        classes_each=4,
        task="detection",
        class_names=published.CLASSES,
    ),
}


def names(task: Task | None = None) -> list[str]:
    """Names of the registered networks, all or those of a task, sorted."""
    return sorted(n for n, entry in _ENTRIES.items() if task in (None, entry.task))


def get(name: str) -> ModelEntry:
    """The entry of a network.

    Raises:
        UsageError: no such network.
    """
    try:
        return _ENTRIES[name]
    except KeyError as exc:
        raise UsageError(
            f"There is no network called {name!r}.", fix=f"Choose one of: {', '.join(names())}."
        ) from exc


def normalise(image: Tensor, preprocess: Preprocess) -> Tensor:
    """(x - mean) / std per channel, after swapping to BGR where the network wants it.

    Args:
        image: float (N, 3, H, W), RGB in [0, 1].
        preprocess: what the network was trained with.
    """
    if preprocess.bgr:
        image = image.flip(1)
    mean = torch.tensor(preprocess.mean, dtype=image.dtype, device=image.device)
    std = torch.tensor(preprocess.std, dtype=image.dtype, device=image.device)
    return (image - mean[:, None, None]) / std[:, None, None]

"""The paper's detectors, built by torchvision with random weights."""

from __future__ import annotations

from torch import nn
from torchvision.models import detection

from zmask_export.models.detection.limits import require_classes


def ssd300(classes: int) -> nn.Module:
    """SSD300 with VGG16 (Liu et al., ECCV 2016); ``classes`` counts the background."""
    require_classes(classes)
    return _plain_relu(
        detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes)
    )


def retinanet(classes: int) -> nn.Module:
    """RetinaNet with ResNet-50 and FPN (Lin et al., ICCV 2017); ``classes`` counts the background."""
    require_classes(classes)
    return _plain_relu(
        detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes)
    )


def fasterrcnn(classes: int) -> nn.Module:
    """Faster R-CNN with ResNet-50 and FPN (Ren et al., 2015); ``classes`` counts the background."""
    require_classes(classes)
    return _plain_relu(
        detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes)
    )


def _plain_relu(network: nn.Module) -> nn.Module:
    """Without rectifiers in place, which would change what a tap of the layer before has read."""
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network

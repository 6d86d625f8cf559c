"""The demo detector: torchvision's RetinaNet on the body of our BiSeNet.

The body's weights come from the demo BiSeNet, which tells the same classes apart pixel by pixel; a
feature pyramid and the heads are trained on boxes (``tools/train_detector.py``). Layers of interest, with
their maps at 360 x 480, which torchvision pads to 384 x 480:

- ``backbone.body.spatial_path.conv_7x7``: 64 channels at 1/2; ``...conv_1x1``: 128 at 1/8;
- ``backbone.body.context_path.layer1``, ``layer2``, ``layer3``: 64 at 1/8, 128 at 1/16, 256 at 1/32;
- ``backbone.fpn.layer_blocks.0``, ``1``, ``2``: 64 at 1/8, 1/16, 1/32.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork

from zmask_export.models.bisenet import BiSeNet
from zmask_export.models.detection.limits import require_classes
from zmask_export.spec import PREPROCESS

SIZE = (360, 480)
"""(H, W) of the images that it was made for; torchvision's transform keeps this size as it is."""

_BODY = (256, 128, 256)
_WIDTH = 64
# Sides of 16 to 200 pixels, a factor of 1.37 apart, three to a level of the pyramid.
_SIDES = ((16, 22, 30), (42, 56, 76), (104, 144, 200))
# Height by width: cars from the side and from behind, people.
_RATIOS = (0.7, 1.4, 3.2)


class _Body(BiSeNet):
    """BiSeNet without its classifiers.

    ``forward`` takes a normalised batch (N, 3, H, W) and returns the fused map at 1/8 of its size (256
    channels), the refined context at 1/16 (128) and the deepest context at 1/32 (256).
    """

    def __init__(self) -> None:
        super().__init__()
        del self.heads

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:  # type: ignore[override]
        fused, _, coarse, deepest = self.maps(x)
        return OrderedDict([("0", fused), ("1", coarse), ("2", deepest)])


class _Backbone(nn.Module):
    """Body and feature pyramid: maps of ``out_channels`` at 1/8, 1/16 and 1/32 of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _Body()
        self.fpn = FeaturePyramidNetwork(list(_BODY), _WIDTH)
        self.out_channels = _WIDTH

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn(self.body(x))


def camvid_retinanet(num_classes: int = 4) -> RetinaNet:
    """RetinaNet with random weights, in eval mode.

    Args:
        num_classes: classes with the background, which is 0; the demo's are car, pedestrian, bicyclist.

    Returns:
        torchvision's network: a list of images float (3, H, W), RGB in [0, 1], to a list of detections.
        Images of :data:`SIZE` are only normalised and padded; others are resized to fit in it.

    Raises:
        WeightsError: fewer than two classes.
    """
    require_classes(num_classes)
    backbone = _Backbone()
    anchors = AnchorGenerator(_SIDES, (_RATIOS,) * len(_SIDES))
    head = RetinaNetHead(_WIDTH, anchors.num_anchors_per_location()[0], num_classes)
    preprocess = PREPROCESS["imagenet"]
    network = RetinaNet(
        backbone,
        num_classes,
        min_size=min(SIZE),
        max_size=max(SIZE),
        image_mean=list(preprocess.mean),
        image_std=list(preprocess.std),
        anchor_generator=anchors,
        head=head,
        detections_per_img=100,
    )
    return network.eval()

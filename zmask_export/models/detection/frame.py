"""From the engine's image to what a torchvision detector sees, and back, for one input size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import boxes as box_ops

from zmask_export.spec import Size


class Frame(nn.Module):
    """Resizing, padding and scaling back, as ``GeneralizedRCNNTransform`` does them in eval mode.

    Args:
        transform: the detector's own.
        size: (H, W) of the images.
        dtype: of the detector's weights.

    Attributes:
        inner: (h, w) after resizing, before padding.
        padded: (h, w) that the backbone sees.
    """

    def __init__(
        self, transform: GeneralizedRCNNTransform, size: Size, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self._dtype = dtype
        # Its own code says what becomes of an image; the values do not matter.
        with torch.inference_mode():
            images, _ = transform([torch.zeros(3, *size)])
        self.size = size
        self.inner: Size = images.image_sizes[0]
        self.padded: Size = (images.tensors.shape[2], images.tensors.shape[3])
        h, w = (
            torch.tensor(outer, dtype=torch.float32) / torch.tensor(inner, dtype=torch.float32)
            for outer, inner in zip(size, self.inner, strict=True)
        )
        self.register_buffer("ratios", torch.stack([w, h, w, h]), persistent=False)

    def prepare(self, image: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) as the backbone takes them, (N, 3, *padded)."""
        if self.inner != self.size:
            image = F.interpolate(image, self.inner, mode="bilinear", align_corners=False)
        bottom, right = (p - i for p, i in zip(self.padded, self.inner, strict=True))
        return F.pad(image, (0, right, 0, bottom)) if bottom or right else image

    def clip(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) cut at the edge of the resized image."""
        return box_ops.clip_boxes_to_image(boxes, self.inner)

    def restore(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) of the resized image in pixels of the engine's."""
        return boxes * self.get_buffer("ratios")

    def within(self, features: Tensor) -> Tensor:
        """The part of maps (N, C, h, w) of a padded image that lies over the image itself."""
        rows, columns = (
            -(-side * inner // padded)
            for side, inner, padded in zip(features.shape[2:], self.inner, self.padded, strict=True)
        )
        return features[:, :, :rows, :columns]

    def images(self) -> ImageList:
        """One image of zeros, for parts of the detector that ask for its sizes."""
        return ImageList(torch.zeros(1, 3, *self.padded, dtype=self._dtype), [self.inner])


def anchors_of(
    generator: AnchorGenerator | DefaultBoxGenerator, frame: Frame, maps: list[Tensor]
) -> tuple[Tensor, list[int]]:
    """The detector's anchors at one input size.

    Args:
        generator: its own.
        frame: sizes of the image.
        maps: feature maps of one image; their values do not matter.

    Returns:
        Anchors float32 (A, 4) and how many belong to each map.
    """
    anchors = generator(frame.images(), maps)[0]
    each = generator.num_anchors_per_location()
    return anchors, [m.shape[2] * m.shape[3] * n for m, n in zip(maps, each, strict=True)]

"""LGS, Local Gradients Smoothing (Naseer, Khan & Porikli, WACV 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export.errors import UsageError

_LUMA = (0.299, 0.587, 0.114)
# A square root has no slope at 0: flat areas would turn gradients through this defense into NaN.
_FLAT = 1e-20


class LocalGradientsSmoothing(nn.Module):
    """Darkens pixels where the image changes much, block by block.

    The gradient magnitude g of the grey image is scaled to [0, 1] over the image. It is kept in blocks
    whose mean of g exceeds a threshold and set to 0 elsewhere; where blocks overlap, one is enough. The
    image is multiplied by 1 - clip(smoothing * g, 0, 1).

    Blocks start at the top left and at every (block - overlap)-th pixel, until the whole image is
    covered; those that reach over the right or bottom border are cut there.

    Args:
        block: side of a block in pixels.
        overlap: pixels that neighbouring blocks share.
        threshold: the mean of g above which a block is smoothed.
        smoothing: factor of g.

    Raises:
        UsageError: blocks that overlap by their whole side, or by less than nothing.
    """

    def __init__(
        self, block: int = 15, overlap: int = 5, threshold: float = 0.1, smoothing: float = 2.3
    ) -> None:
        super().__init__()
        if not 0 <= overlap < block:
            raise UsageError(
                f"Blocks of {block} pixels cannot overlap by {overlap}.",
                fix="Choose an overlap from 0 to less than the block.",
            )
        self.block = block
        self.stride = block - overlap
        self.threshold = threshold
        self.smoothing = smoothing

    def forward(self, image: Tensor) -> Tensor:
        """The smoothed image; see :meth:`protect`."""
        return self.protect(image)

    def protect(self, image: Tensor) -> Tensor:
        """The smoothed image (N, 3, H, W) of an image (N, 3, H, W), both RGB in [0, 1]."""
        return image * self.mask(image)

    def mask(self, image: Tensor) -> Tensor:
        """What each pixel of images (N, 3, H, W) is multiplied by: (N, 1, H, W) in [0, 1], 1 keeps it."""
        g = _scaled(_gradient(_grey(image)))
        return 1 - (self.smoothing * g * self._chosen(g)).clamp(0, 1)

    def _chosen(self, g: Tensor) -> Tensor:
        """1 inside blocks whose mean of g exceeds the threshold, else 0; (N, 1, H, W)."""
        h, w = g.shape[2:]
        pad = (0, self._beyond(w), 0, self._beyond(h))
        # Padding adds zeros to sum and count alike, so a cut block averages the pixels it has.
        ones = torch.ones(1, 1, h, w, dtype=g.dtype, device=g.device)
        share = F.avg_pool2d(F.pad(ones, pad), self.block, self.stride)
        mean = F.avg_pool2d(F.pad(g, pad), self.block, self.stride) / share
        over = (mean > self.threshold).to(g.dtype)
        kernel = torch.ones(1, 1, self.block, self.block, dtype=g.dtype, device=g.device)
        votes = F.conv_transpose2d(over, kernel, stride=self.stride)
        return (votes[:, :, :h, :w] > 0.5).to(g.dtype)

    def _beyond(self, side: int) -> int:
        """Pixels by which the last block reaches over the border of a side."""
        further = max(0, -(-(side - self.block) // self.stride))
        return further * self.stride + self.block - side


def _grey(image: Tensor) -> Tensor:
    """Luma (N, 1, H, W) of an RGB image."""
    weights = torch.tensor(_LUMA, dtype=image.dtype, device=image.device)
    return (image * weights[:, None, None]).sum(dim=1, keepdim=True)


def _gradient(grey: Tensor) -> Tensor:
    """Magnitude of the first differences to the right and downwards; 0 past the border."""
    across = F.pad(grey[:, :, :, 1:] - grey[:, :, :, :-1], (0, 1, 0, 0))
    down = F.pad(grey[:, :, 1:] - grey[:, :, :-1], (0, 0, 0, 1))
    return (across.square() + down.square()).clamp(min=_FLAT).sqrt()


def _scaled(g: Tensor) -> Tensor:
    """g stretched to [0, 1] over each image; 0 where it does not vary."""
    low = g.amin(dim=(2, 3), keepdim=True)
    span = g.amax(dim=(2, 3), keepdim=True) - low
    return torch.where(span > 0, (g - low) / torch.where(span > 0, span, 1.0), 0.0)

"""ICNet: image cascade network for real-time segmentation (Zhao et al., ECCV 2018).

Module names follow the widespread PyTorch port (pytorch-semseg), so that its checkpoints load by
name and Table 1's taps are found by name. Unlike that port, any input size works: every branch is
resized to the branch it meets. At 1025 x 2049, the size of the published weights, all sizes are
those of the original.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export.errors import ShapeError

MIN_SIDE = 64
"""Smallest input side in pixels; below it the deepest branch has under 3 positions."""

AuxLogits = tuple[Tensor, Tensor, Tensor]

_POOL_BINS = (6, 3, 2, 1)
# The original's windows at 33 x 65, the deepest map of a 1025 x 2049 image: (kernel, stride) a bin.
_PUBLISHED_WINDOWS = {
    (33, 65): (
        ((8, 15), (5, 10)),
        ((13, 25), (10, 20)),
        ((17, 33), (16, 32)),
        ((33, 65), (33, 65)),
    )
}


class _ConvBn(nn.Module):
    """Convolution and batch norm, stored as ``cb_unit.0`` and ``cb_unit.1``."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=False)
        self.cb_unit = nn.Sequential(conv, nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        return self.cb_unit(x)


class _ConvBnRelu(nn.Module):
    """Convolution, batch norm, ReLU, stored as ``cbr_unit.0`` and ``cbr_unit.1``."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=False)
        self.cbr_unit = nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.cbr_unit(x)


class _Bottleneck(nn.Module):
    """Residual bottleneck; with ``project`` the shortcut is a 1 x 1 convolution (``cb4``)."""

    def __init__(
        self, cin: int, mid: int, cout: int, stride: int, dilation: int, project: bool
    ) -> None:
        super().__init__()
        self.cbr1 = _ConvBnRelu(cin, mid, 1)
        self.cbr2 = _ConvBnRelu(mid, mid, 3, stride, dilation)
        self.cb3 = _ConvBn(mid, cout, 1)
        if project:
            self.cb4 = _ConvBn(cin, cout, 1, stride)
        self.project = project

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.cb4(x) if self.project else x
        return F.relu(self.cb3(self.cbr2(self.cbr1(x))) + shortcut)


class _ResidualBlock(nn.Module):
    """A projecting bottleneck, then identity bottlenecks; ``part`` takes one or both halves."""

    def __init__(
        self,
        blocks: int,
        cin: int,
        mid: int,
        cout: int,
        stride: int = 1,
        dilation: int = 1,
        part: Literal["all", "conv", "identity"] = "all",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if part != "identity":
            layers.append(_Bottleneck(cin, mid, cout, stride, dilation, project=True))
        if part != "conv":
            layers += [
                _Bottleneck(cout, mid, cout, 1, dilation, project=False) for _ in range(blocks - 1)
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _pool_windows(h: int, w: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    published = _PUBLISHED_WINDOWS.get((h, w))
    if published is not None:
        return list(published)
    windows = []
    for bins in _POOL_BINS:
        bh, bw = min(bins, h), min(bins, w)
        stride = (h // bh, w // bw)
        windows.append(((h - (bh - 1) * stride[0], w - (bw - 1) * stride[1]), stride))
    return windows


class _PyramidPooling(nn.Module):
    """Sum of the map and its averages over 6, 3, 2 and 1 bins a side. Has no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        total = x
        for kernel, stride in _pool_windows(int(size[0]), int(size[1])):
            total = total + _resize(F.avg_pool2d(x, kernel, stride), size)
        return total


class _CascadeFeatureFusion(nn.Module):
    """Joins a coarse map with a finer one; also gives the coarse branch's auxiliary logits."""

    def __init__(self, classes: int, low: int, high: int, cout: int) -> None:
        super().__init__()
        self.low_dilated_conv_bn = _ConvBn(low, cout, 3, dilation=2)
        self.low_classifier_conv = nn.Conv2d(low, classes, 1)
        self.high_proj_conv_bn = _ConvBn(high, cout, 1)

    def forward(self, x_low: Tensor, x_high: Tensor) -> tuple[Tensor, Tensor | None]:
        x_low = _resize(x_low, x_high.shape[2:])
        # The auxiliary head serves training only; in eval mode it must not reach the graph.
        aux = self.low_classifier_conv(x_low) if self.training else None
        return F.relu(self.low_dilated_conv_bn(x_low) + self.high_proj_conv_bn(x_high)), aux


def _resize(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def _half(size: torch.Size) -> tuple[int, int]:
    return int(size[0]) // 2 + 1, int(size[1]) // 2 + 1


class ICNet(nn.Module):
    """Image cascade network with branches at full, half and quarter resolution.

    Args:
        classes: number of classes, at least 2.

    ``forward`` takes a normalised float image batch (N, 3, H, W) with sides of at least
    ``MIN_SIDE`` and returns logits (N, classes, H, W). In training mode it returns three maps of
    logits, of the full, half and quarter branch, at 1/4, 1/8 and 1/16 of the input size (rounded
    up), for the cascade label guidance of the paper.

    Raises:
        ShapeError: the input is no (N, 3, H, W) batch or a side is under ``MIN_SIDE``.
    """

    ALIGN_CORNERS = True
    """How logits are enlarged to the size of the image."""

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.convbnrelu1_1 = _ConvBnRelu(3, 32, 3, stride=2)
        self.convbnrelu1_2 = _ConvBnRelu(32, 32, 3)
        self.convbnrelu1_3 = _ConvBnRelu(32, 64, 3)
        self.res_block2 = _ResidualBlock(3, 64, 32, 128)
        self.res_block3_conv = _ResidualBlock(4, 128, 64, 256, stride=2, part="conv")
        self.res_block3_identity = _ResidualBlock(4, 128, 64, 256, part="identity")
        self.res_block4 = _ResidualBlock(6, 256, 128, 512, dilation=2)
        self.res_block5 = _ResidualBlock(3, 512, 256, 1024, dilation=4)
        self.pyramid_pooling = _PyramidPooling()
        self.conv5_4_k1 = _ConvBnRelu(1024, 256, 1)
        self.convbnrelu1_sub1 = _ConvBnRelu(3, 32, 3, stride=2)
        self.convbnrelu2_sub1 = _ConvBnRelu(32, 32, 3, stride=2)
        self.convbnrelu3_sub1 = _ConvBnRelu(32, 64, 3, stride=2)
        self.cff_sub24 = _CascadeFeatureFusion(classes, 256, 256, 128)
        self.cff_sub12 = _CascadeFeatureFusion(classes, 128, 64, 128)
        self.classification = nn.Conv2d(128, classes, 1)

    def forward(self, x: Tensor) -> Tensor | AuxLogits:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < MIN_SIDE:
            raise ShapeError(
                f"ICNet takes images of shape (N, 3, H, W) with sides of at least {MIN_SIDE}, "
                f"got {tuple(x.shape)}.",
                fix="Resize the images, or give a larger --input-size.",
            )
        size = x.shape[2:]
        sub2 = self.convbnrelu1_1(_resize(x, _half(size)))
        sub2 = self.convbnrelu1_3(self.convbnrelu1_2(sub2))
        sub2 = self.res_block2(F.max_pool2d(sub2, 3, 2, 1))
        sub2 = self.res_block3_conv(sub2)
        sub4 = self.res_block3_identity(_resize(sub2, _half(sub2.shape[2:])))
        sub4 = self.res_block5(self.res_block4(sub4))
        sub4 = self.conv5_4_k1(self.pyramid_pooling(sub4))
        sub1 = self.convbnrelu3_sub1(self.convbnrelu2_sub1(self.convbnrelu1_sub1(x)))
        sub24, aux4 = self.cff_sub24(sub4, sub2)
        sub12, aux24 = self.cff_sub12(sub24, sub1)
        quarter = ((int(size[0]) + 3) // 4, (int(size[1]) + 3) // 4)
        logits = self.classification(_resize(sub12, quarter))
        if self.training:
            return logits, aux24, aux4
        return _resize(logits, size)

"""BiSeNet with Xception39: bilateral segmentation network (Yu et al., ECCV 2018).

Module names and arithmetic follow TorchSeg, so that its checkpoints load by name and Table 1's taps
are found: ``spatial-path-conv-7x7`` and ``spatial-path-conv-1x1`` are the first and the last convolution
of the spatial path (after batch norm and ReLU); ``ct0``, ``ct1``, ``ct2`` are the outputs of the context
path, counted from the deepest (1/32, 1/16, 1/8). Any input size works.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export.errors import ShapeError

MIN_SIDE = 32
"""Smallest input side in pixels: the deepest map has a 32nd of it."""

_BLOCKS = (4, 8, 4)
_CHANNELS = (64, 128, 256)
_WIDTH = 128

Logits = tuple[Tensor, Tensor, Tensor]


class _ConvBnRelu(nn.Module):
    """Convolution, then batch norm and ReLU where asked for; stored as ``conv`` and ``bn``."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        *,
        norm: bool = True,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(cout) if norm else nn.Identity()
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class _Separable(nn.Module):
    """Depthwise 3 x 3, then pointwise with batch norm."""

    def __init__(self, cin: int, cout: int, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False)
        self.point_wise_cbr = _ConvBnRelu(cin, cout, 1, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_wise_cbr(self.conv1(x))


class _Block(nn.Module):
    """Residual branch of three separable convolutions; a strided block projects its shortcut."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        mid = cout // 4
        self.proj = _Separable(cin, cout, stride, relu=False) if stride > 1 else nn.Identity()
        self.residual_branch = nn.Sequential(
            _Separable(cin, mid, stride),
            _Separable(mid, mid),
            _Separable(mid, cout, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.proj(x) + self.residual_branch(x))


def _stage(cin: int, cout: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_Block(cin, cout, 2), *(_Block(cout, cout, 1) for _ in range(blocks - 1)))


class _Xception39(nn.Module):
    """The context path: maps at 1/8, 1/16 and 1/32 of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _ConvBnRelu(3, 8, 3, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(8, _CHANNELS[0], _BLOCKS[0])
        self.layer2 = _stage(_CHANNELS[0], _CHANNELS[1], _BLOCKS[1])
        self.layer3 = _stage(_CHANNELS[1], _CHANNELS[2], _BLOCKS[2])

    def forward(self, x: Tensor) -> Logits:
        eighth = self.layer1(self.maxpool(self.conv1(x)))
        sixteenth = self.layer2(eighth)
        return eighth, sixteenth, self.layer3(sixteenth)


class _SpatialPath(nn.Module):
    """Three strided convolutions and a pointwise one: detail at 1/8 of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_7x7 = _ConvBnRelu(3, 64, 7, 2)
        self.conv_3x3_1 = _ConvBnRelu(64, 64, 3, 2)
        self.conv_3x3_2 = _ConvBnRelu(64, 64, 3, 2)
        self.conv_1x1 = _ConvBnRelu(64, _WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_1x1(self.conv_3x3_2(self.conv_3x3_1(self.conv_7x7(x))))


class _AttentionRefinement(nn.Module):
    """A convolution whose channels are weighted by their global mean."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv_3x3 = _ConvBnRelu(cin, cout, 3)
        self.channel_attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), _ConvBnRelu(cout, cout, 1, relu=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_3x3(x)
        return x * self.channel_attention(x)


class _FeatureFusion(nn.Module):
    """Joins the two paths."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_1x1 = _ConvBnRelu(channels, channels, 1)
        self.channel_attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            _ConvBnRelu(channels, channels, 1, norm=False),
            _ConvBnRelu(channels, channels, 1, norm=False, relu=False),
            nn.Sigmoid(),
        )

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x = self.conv_1x1(torch.cat([spatial, context], 1))
        return x + x * self.channel_attention(x)


class _Head(nn.Module):
    """Classifier."""

    def __init__(self, cin: int, mid: int, classes: int) -> None:
        super().__init__()
        self.conv_3x3 = _ConvBnRelu(cin, mid, 3)
        self.conv_1x1 = nn.Conv2d(mid, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_1x1(self.conv_3x3(x))


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


class BiSeNet(nn.Module):
    """BiSeNet with an Xception39 context path.

    Args:
        classes: number of classes, at least 2.

    ``forward`` takes a normalised float image batch (N, 3, H, W) with sides of at least
    ``MIN_SIDE`` and returns logits (N, classes, H, W); the original gives their log-softmax. In training
    mode it returns three maps of logits: the main one at 1/8 of the input size (rounded up), and the
    auxiliary ones of the context path at 1/16 and 1/8.

    Raises:
        ShapeError: the input is no (N, 3, H, W) batch or a side is under ``MIN_SIDE``.
    """

    ALIGN_CORNERS = True
    """How logits are enlarged to the size of the image."""

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.context_path = _Xception39()
        self.spatial_path = _SpatialPath()
        self.global_context = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), _ConvBnRelu(_CHANNELS[2], _WIDTH, 1)
        )
        self.arms = nn.ModuleList(
            [_AttentionRefinement(channels, _WIDTH) for channels in (_CHANNELS[2], _CHANNELS[1])]
        )
        self.refines = nn.ModuleList([_ConvBnRelu(_WIDTH, _WIDTH, 3) for _ in range(2)])
        self.ffm = _FeatureFusion(_WIDTH * 2)
        self.heads = nn.ModuleList(
            [
                _Head(_WIDTH, 128, classes),
                _Head(_WIDTH, 128, classes),
                _Head(_WIDTH * 2, 64, classes),
            ]
        )

    def forward(self, x: Tensor) -> Tensor | Logits:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < MIN_SIDE:
            raise ShapeError(
                f"BiSeNet takes images of shape (N, 3, H, W) with sides of at least {MIN_SIDE}, "
                f"got {tuple(x.shape)}.",
                fix="Resize the images, or give a larger --input-size.",
            )
        fused, context, coarse, _ = self.maps(x)
        logits = self.heads[2](fused)
        if self.training:
            return logits, self.heads[0](coarse), self.heads[1](context)
        return _resize(logits, x)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the heads read of a normalised batch (N, 3, H, W), and what lies below.

        Returns:
            Both paths fused (256 channels at 1/8), the context at 1/8 and at 1/16 (128 channels each), and
            the deepest map of the context path (256 at 1/32).
        """
        eighth, sixteenth, deepest = self.context_path(x)
        # A map of one position resized is that position everywhere: adding it broadcasts.
        coarse = self.arms[0](deepest) + self.global_context(deepest)
        coarse = self.refines[0](_resize(coarse, sixteenth))
        context = self.refines[1](_resize(self.arms[1](sixteenth) + coarse, eighth))
        return self.ffm(self.spatial_path(x), context), context, coarse, deepest

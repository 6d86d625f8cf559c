"""DDRNet-23-slim: deep dual-resolution network for segmentation (Hong et al., 2021).

Module names and arithmetic follow the authors' repository, so that its checkpoints load by name and
Table 1's taps are found: ``rb1`` and ``rb2`` are the outputs of ``layer1`` and ``layer2``, ``rbb1`` and
``rbb2`` those of the bottlenecks that end the high- and the low-resolution branch (``layer5_`` and
``layer5``). All four are sums before their ReLU. Unlike the original, any input size works: the
low-resolution branch is resized to the branch that it meets.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export.errors import ShapeError

MIN_SIDE = 64
"""Smallest input side in pixels: the deepest branch has a 64th of it."""

_PLANES = 32
_BRANCH = 128
_HEAD = 64
_POOLS = ((5, 2), (9, 4), (17, 8))


def _conv(cin: int, cout: int, kernel: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=bias)


def _bn_relu_conv(cin: int, cout: int, kernel: int, *before: nn.Module) -> nn.Sequential:
    return nn.Sequential(*before, nn.BatchNorm2d(cin), nn.ReLU(), _conv(cin, cout, kernel))


class _Residual(nn.Module):
    """Two 3 x 3 convolutions, or a bottleneck, and a shortcut; ``last`` leaves out the final ReLU."""

    def __init__(
        self, cin: int, mid: int, stride: int = 1, *, bottleneck: bool = False, last: bool = False
    ) -> None:
        super().__init__()
        cout = mid * 2 if bottleneck else mid
        self.conv1 = _conv(cin, mid, 1) if bottleneck else _conv(cin, mid, 3, stride)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = _conv(mid, mid, 3, stride if bottleneck else 1)
        self.bn2 = nn.BatchNorm2d(mid)
        if bottleneck:
            self.conv3 = _conv(mid, cout, 1)
            self.bn3 = nn.BatchNorm2d(cout)
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(_conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))
        self.bottleneck = bottleneck
        self.project = stride != 1 or cin != cout
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            out = self.bn3(self.conv3(F.relu(out)))
        out = out + (self.downsample(x) if self.project else x)
        return out if self.last else F.relu(out)


def _pair(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_Residual(cin, cout, stride), _Residual(cout, cout, last=True))


def _bottleneck(cin: int, mid: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_Residual(cin, mid, stride, bottleneck=True, last=True))


def _down(*planes: int) -> nn.Sequential:
    """Strided 3 x 3 convolutions, each with batch norm, ReLU between them."""
    layers: list[nn.Module] = []
    for cin, cout in itertools.pairwise(planes):
        if layers:
            layers.append(nn.ReLU())
        layers += [_conv(cin, cout, 3, 2), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers)


class _PyramidPooling(nn.Module):
    """DAPPM: five scales of context, each refined with the one before."""

    def __init__(self, cin: int, branch: int, cout: int) -> None:
        super().__init__()
        self.scale0 = _bn_relu_conv(cin, branch, 1)
        for index, (kernel, stride) in enumerate(_POOLS, start=1):
            pool = nn.AvgPool2d(kernel, stride, kernel // 2)
            self.add_module(f"scale{index}", _bn_relu_conv(cin, branch, 1, pool))
        self.scale4 = _bn_relu_conv(cin, branch, 1, nn.AdaptiveAvgPool2d((1, 1)))
        for index in range(1, 5):
            self.add_module(f"process{index}", _bn_relu_conv(branch, branch, 3))
        self.compression = _bn_relu_conv(branch * 5, cout, 1)
        self.shortcut = _bn_relu_conv(cin, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.scale0(x)]
        for index in range(1, 5):
            scale = _resize(self.get_submodule(f"scale{index}")(x), x)
            maps.append(self.get_submodule(f"process{index}")(scale + maps[-1]))
        return self.compression(torch.cat(maps, 1)) + self.shortcut(x)


class _Head(nn.Module):
    """Classifier of pre-activated maps."""

    def __init__(self, cin: int, mid: int, classes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = _conv(cin, mid, 3)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv2 = _conv(mid, classes, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class DDRNet(nn.Module):
    """DDRNet-23-slim.

    Args:
        classes: number of classes, at least 2.
        auxiliary: with the head ``seghead_extra`` that serves training only.

    ``forward`` takes a normalised float image batch (N, 3, H, W) with sides of at least
    ``MIN_SIDE`` and returns logits (N, classes, H, W). In training mode it returns logits at 1/8 of the
    input size (rounded up), and with ``auxiliary`` a second map of logits at that size.

    Raises:
        ShapeError: the input is no (N, 3, H, W) batch or a side is under ``MIN_SIDE``.
    """

    ALIGN_CORNERS = False
    """How logits are enlarged to the size of the image."""

    def __init__(self, classes: int = 19, *, auxiliary: bool = False) -> None:
        super().__init__()
        p, high = _PLANES, _PLANES * 2
        self.conv1 = nn.Sequential(
            *(_conv(3, p, 3, 2, bias=True), nn.BatchNorm2d(p), nn.ReLU()),
            *(_conv(p, p, 3, 2, bias=True), nn.BatchNorm2d(p), nn.ReLU()),
        )
        self.layer1 = _pair(p, p)
        self.layer2 = _pair(p, high, 2)
        self.layer3 = _pair(high, p * 4, 2)
        self.layer4 = _pair(p * 4, p * 8, 2)
        self.compression3 = nn.Sequential(_conv(p * 4, high, 1), nn.BatchNorm2d(high))
        self.compression4 = nn.Sequential(_conv(p * 8, high, 1), nn.BatchNorm2d(high))
        self.down3 = _down(high, p * 4)
        self.down4 = _down(high, p * 4, p * 8)
        self.layer3_ = _pair(high, high)
        self.layer4_ = _pair(high, high)
        self.layer5_ = _bottleneck(high, high)
        self.layer5 = _bottleneck(p * 8, p * 8, 2)
        self.spp = _PyramidPooling(p * 16, _BRANCH, p * 4)
        if auxiliary:
            self.seghead_extra = _Head(high, _HEAD, classes)
        self.final_layer = _Head(p * 4, _HEAD, classes)
        self.auxiliary = auxiliary
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < MIN_SIDE:
            raise ShapeError(
                f"DDRNet takes images of shape (N, 3, H, W) with sides of at least {MIN_SIDE}, "
                f"got {tuple(x.shape)}.",
                fix="Resize the images, or give a larger --input-size.",
            )
        image = x
        eighth = self.layer2(F.relu(self.layer1(self.conv1(x))))
        low = self.layer3(F.relu(eighth))
        high = self.layer3_(F.relu(eighth))
        compressed = self.compression3(F.relu(low))
        low = low + self.down3(F.relu(high))
        high = high + _resize(compressed, eighth)
        middle = high
        low = self.layer4(F.relu(low))
        high = self.layer4_(F.relu(high))
        compressed = self.compression4(F.relu(low))
        low = low + self.down4(F.relu(high))
        high = high + _resize(compressed, eighth)
        high = self.layer5_(F.relu(high))
        low = _resize(self.spp(self.layer5(F.relu(low))), eighth)
        logits = self.final_layer(low + high)
        if not self.training:
            return _resize(logits, image)
        return (logits, self.seghead_extra(middle)) if self.auxiliary else logits

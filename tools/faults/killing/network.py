"""The network that verbs are killed with: quick to run, with weights that take a while to write."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 11
"""Of CamVid."""


class Street(nn.Module):
    """Class scores for every eighth pixel; 14 MB of weights, most of them where there are few pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 16)
        self.body = _block(16, 32)
        self.deep = _block(32, 256)
        self.wide = nn.Sequential(_block(256, 640), _block(640, 256))
        self.head = nn.Conv2d(256, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        deep = self.deep(self.body(self.stem(image)))
        wide = nn.functional.interpolate(self.wide(deep), deep.shape[-2:], mode="bilinear")
        scores: Tensor = self.head(deep + wide)
        return scores


def _block(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


def make() -> nn.Module:
    """The network, as ``--module killing.network:make`` takes it; its caller seeds torch."""
    torch.set_num_threads(1)
    return Street()

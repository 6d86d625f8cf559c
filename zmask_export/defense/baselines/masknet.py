"""MaskNet: a U-Net that paints a soft mask (Chiang, Chan & Wu, ACM Multimedia 2021; Eq. 15)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export.artifacts.files import write_bytes
from zmask_export.errors import WeightsError
from zmask_export.models.weights import read_state

WIDTHS = (16, 32, 64, 128, 128)
"""Channels from half the input's resolution down to a thirty-second of it."""

_START = 3.0
"""Bias of the head: an untrained MaskNet keeps 95 % of every pixel, so it starts near the bare network."""


class MaskNet(nn.Module):
    """Image to soft mask: a U-Net of 1.2 million parameters, for images of any size.

    Two 3 x 3 convolutions with batch norm a level, maximum pooling downwards, bilinear resizing and a
    concatenation upwards, a sigmoid at the end. It sees the image at half its resolution, which costs a
    quarter of the time and a pixel of the mask's edge.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _level(before, width) for before, width in zip((3, *WIDTHS), WIDTHS, strict=False)
        )
        self.up = nn.ModuleList(
            _level(below + width, width)
            for below, width in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)
        nn.init.constant_(self.head.bias, _START)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """The mask; see :meth:`mask`."""
        return self.mask(image)

    def mask(self, image: Tensor) -> Tensor:
        """What each pixel is multiplied by, (N, 1, H, W) in [0, 1], of an image (N, 3, H, W) in [0, 1]."""
        h, w = image.shape[2:]
        x = _resized(image * 2 - 1, ((h + 1) // 2, (w + 1) // 2))
        levels: list[Tensor] = []
        for index, level in enumerate(self.down):
            x = level(F.max_pool2d(x, 2, ceil_mode=True) if index else x)
            levels.append(x)
        for level, skip in zip(self.up, levels[-2::-1], strict=True):
            x = level(torch.cat([_resized(x, skip.shape[2:]), skip], dim=1))
        return torch.sigmoid(_resized(self.head(x), (h, w)))

    def protect(self, image: Tensor) -> Tensor:
        """x * M(x) of Eq. 15, (N, 3, H, W)."""
        return image * self.mask(image)


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _level(before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, width):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def save_masknet(path: Path, masknet: MaskNet, record: Mapping[str, str] | None = None) -> None:
    """Write the weights as safetensors in float16, whole or not at all.

    Args:
        path: the file.
        masknet: what to write.
        record: how it was trained, kept in the file's header.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {name: value.half().contiguous() for name, value in _weights(masknet).items()}
    write_bytes(path, save_tensors(tensors, metadata=dict(record or {})))


def load_masknet(path: Path) -> MaskNet:
    """Read the weights that :func:`save_masknet` writes, into float32 and eval mode.

    Raises:
        WeightsError: missing, cut short, foreign, of another shape, or not finite.
    """
    state = read_state(path)
    masknet = MaskNet()
    expected = _weights(masknet)
    wrong = sorted(
        name
        for name in expected.keys() | state.keys()
        if name not in expected or name not in state or state[name].shape != expected[name].shape
    )
    if wrong:
        raise WeightsError(
            f"The weights {path} are not those of a MaskNet: {len(wrong)} tensors are missing, foreign "
            f"or of another shape (the first is {wrong[0]}).",
            fix="Give a file that tools/train_masknet.py wrote.",
        )
    for name, value in state.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise WeightsError(
                f"The MaskNet weights {path} hold a value that is no finite number, in {name}.",
                fix="Train it again.",
            )
    masknet.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    return masknet.eval()


def _weights(masknet: MaskNet) -> dict[str, Tensor]:
    state = masknet.state_dict()
    return {
        name: value for name, value in state.items() if not name.endswith("num_batches_tracked")
    }

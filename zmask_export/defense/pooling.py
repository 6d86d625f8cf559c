"""The operators of Eq. 3, written as the paper writes them: R (resize) and A_i (average pooling)."""

from __future__ import annotations

import functools

from torch import Tensor
from torch.nn import functional as F

from zmask_export.spec import Registration, Size


def resize(x: Tensor, grid: Size) -> Tensor:
    """R: bilinear interpolation with half-pixel centres of (N, C, h, w) to (N, C, HR, WR)."""
    if tuple(x.shape[2:]) == tuple(grid):
        return x
    return F.interpolate(x, size=grid, mode="bilinear", align_corners=False)


def average_pool(x: Tensor, kernel: Size, registration: Registration) -> Tensor:
    """A_i: the mean over a kh x kw window at stride 1.

    ``paper``: only windows that lie inside, so (N, C, h, w) becomes (N, C, h - kh + 1, w - kw + 1).
    ``aligned``: a window centred on each position and clipped at the border, averaging the pixels
    inside; the size stays. A window of even length k reaches (k - 1) // 2 up and left, k // 2 down
    and right.

    A 2-D mean is taken as two 1-D means, which is the same and far cheaper.
    """
    kh, kw = kernel
    if registration == "paper":
        return F.avg_pool2d(F.avg_pool2d(x, (kh, 1), stride=1), (1, kw), stride=1)
    mean = functools.partial(F.avg_pool2d, stride=1, count_include_pad=False)
    # Padding is the same at both ends, so an even window has a place more; it reaches too far up or left.
    x = mean(x, (kh, 1), padding=(kh // 2, 0))[:, :, 1 - kh % 2 :]
    return mean(x, (1, kw), padding=(0, kw // 2))[..., 1 - kw % 2 :]


def stage(x: Tensor, kernel: Size, grid: Size, registration: Registration) -> Tensor:
    """P_i = R(A_i(R(z))), (N, C, h, w) to (N, C, HR, WR)."""
    return resize(average_pool(resize(x, grid), kernel, registration), grid)


def additions(kernel: Size, grid: Size, registration: Registration) -> int:
    """Additions of one stage of Eq. 3 as written, for one channel: a 2-D window at every place."""
    inside = registration == "paper"
    places = [cells - k + 1 if inside else cells for k, cells in zip(kernel, grid, strict=True)]
    return places[0] * places[1] * kernel[0] * kernel[1]

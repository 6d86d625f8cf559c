"""RoIAlign over the levels of a feature pyramid, in plain operators.

The levels stand below one another on one canvas, so one ``grid_sample`` reads every box from its level.
The border rules are the operator's own: a sample up to one cell outside takes the nearest cell, one further
out is 0.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign


class PlainRoIAlign(nn.Module):
    """``MultiScaleRoIAlign`` (not aligned) for a fixed number of boxes an image.

    Args:
        pool: the detector's own, which has run once, so that it knows its scales.
        sizes: (h, w) of its levels, in its order.
    """

    def __init__(self, pool: MultiScaleRoIAlign, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.pool = pool
        self.width = max(w for _, w in sizes)
        tops = [sum(h for h, _ in sizes[:level]) for level in range(len(sizes))]
        self.height = tops[-1] + sizes[-1][0]
        rows = [
            [scale, top, h, w]
            for scale, top, (h, w) in zip(pool.scales or [], tops, sizes, strict=True)
        ]
        self.register_buffer("levels", torch.tensor(rows), persistent=False)

    def forward(self, features: list[Tensor], boxes: Tensor) -> Tensor:
        """Features of every box.

        Args:
            features: maps (N, C, h, w) of the levels.
            boxes: (N, R, 4) in pixels of the resized image.

        Returns:
            (N * R, C, ph, pw).
        """
        canvas = torch.cat([F.pad(m, (0, self.width - m.shape[3])) for m in features], dim=2)
        count = boxes.shape[1]
        levels = self.get_buffer("levels")
        own = levels[self._level_of(boxes.flatten(0, 1))]
        scale, top, h, w = own.reshape(-1, count, 1, 4).unbind(3)
        across = _samples(boxes[..., 0::2] * scale, self.pool.output_size[1], self._ratio)
        down = _samples(boxes[..., 1::2] * scale, self.pool.output_size[0], self._ratio)
        inside_x, inside_y = ((v >= -1) & (v <= end) for v, end in ((across, w), (down, h)))
        # Clamped within its own level, a sample never reads a neighbour's rows.
        x = torch.minimum(across.clamp(min=0), w - 1)
        y = torch.minimum(down.clamp(min=0), h - 1) + top
        gx = x * (2 / max(self.width - 1, 1)) - 1
        gy = y * (2 / max(self.height - 1, 1)) - 1
        step = self._ratio

        def read(down_at: int, across_at: int) -> Tensor:
            """One sample of every bin; sample by sample, memory holds no bin twice."""
            at_x, at_y = slice(across_at, None, step), slice(down_at, None, step)
            picked = _grid(gx[..., at_x], gy[..., at_y])
            values = F.grid_sample(canvas, picked, padding_mode="border", align_corners=True)
            return values * _pairs(inside_x[..., at_x], inside_y[..., at_y]).to(values.dtype)

        total = functools.reduce(
            torch.add, itertools.starmap(read, itertools.product(range(step), range(step)))
        )
        ph, pw = self.pool.output_size
        pooled = (total / step**2).reshape(-1, canvas.shape[1], count, ph, pw)
        return pooled.transpose(1, 2).flatten(0, 1)

    def _level_of(self, boxes: Tensor) -> Tensor:
        """int64 (B,) of boxes (B, 4)."""
        most = len(self.get_buffer("levels")) - 1
        if not most:
            return torch.zeros_like(boxes[:, 0], dtype=torch.int64)
        # A box that is no number has no level; its features are no number either.
        return self.pool.map_levels([boxes]).clamp(0, most)

    @property
    def _ratio(self) -> int:
        return int(self.pool.sampling_ratio)


def _samples(ends: Tensor, bins: int, ratio: int) -> Tensor:
    """Positions (N, R, bins * ratio) along one side of the boxes, from their ends (N, R, 2)."""
    start, end = ends[..., :1], ends[..., 1:]
    # A box is at least one cell wide, as the operator has it.
    bin_size = (end - start).clamp(min=1.0) / bins
    cells = torch.arange(bins, dtype=ends.dtype).repeat_interleave(ratio)
    within = (torch.arange(ratio, dtype=ends.dtype) + 0.5).repeat(bins)
    return start + cells * bin_size + within * bin_size / ratio


def _grid(x: Tensor, y: Tensor) -> Tensor:
    """(N, R * ph, pw, 2) from positions (N, R, pw) and (N, R, ph)."""
    pw, ph = x.shape[2], y.shape[2]
    x = x[:, :, None].expand(-1, -1, ph, pw)
    y = y[..., None].expand(-1, -1, ph, pw)
    return torch.stack([x, y], dim=-1).flatten(1, 2)


def _pairs(x: Tensor, y: Tensor) -> Tensor:
    """(N, 1, R * ph, pw): where both positions lie inside."""
    return (x[:, :, None] & y[..., None]).flatten(1, 2)[:, None]

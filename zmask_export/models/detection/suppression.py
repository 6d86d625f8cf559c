"""Greedy non-maximum suppression as one operator, which the exporter keeps whole.

Eagerly it is torchvision's own ``nms``. In a graph it is a node ``zmask::GreedyKeep`` that the fuse stage
replaces by plain operators; see ``fuse/suppression.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


@torch.library.custom_op("zmask::greedy_keep", mutates_args=())
def greedy_keep(boxes: Tensor, valid: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Which boxes survive, group by group.

    Args:
        boxes: (N, G, K, 4), x1 y1 x2 y2, the surest of a group first.
        valid: bool (N, G, K), False for what does not count.
        labels: int64 (N, G, K); boxes of different labels never suppress each other.
        iou: a later box that overlaps an earlier survivor by more than this goes.

    Returns:
        bool (N, G, K).
    """
    keep = torch.zeros_like(valid)
    descending = -torch.arange(boxes.shape[2], dtype=boxes.dtype, device=boxes.device)
    for image, group in torch.cartesian_prod(*map(torch.arange, boxes.shape[:2])).tolist():
        for label in torch.unique(labels[image, group]):
            of_label = valid[image, group] & (labels[image, group] == label)
            rows = of_label.nonzero()[:, 0]
            kept = nms(boxes[image, group, rows], descending[rows], iou)
            keep[image, group, rows[kept]] = True
    return keep


@greedy_keep.register_fake
def _(boxes: Tensor, valid: Tensor, labels: Tensor, iou: float) -> Tensor:
    return torch.empty_like(valid)

"""Sorting and picking candidates with top-k alone, within what every target can do."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zmask_export.errors import UsageError

TOP_K_LIMIT = 3840
"""Most elements that TensorRT's and TensorRT-RTX's top-k gives."""


class Candidates(NamedTuple):
    """Boxes that may become detections, in groups that suppress each other only within.

    Attributes:
        boxes: float32 (N, G, K, 4).
        scores: float32 (N, G, K).
        labels: int64 (N, G, K).
        valid: bool (N, G, K), False for what does not count.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor


def require_top_k(count: int, what: str) -> None:
    """Refuse more elements than a target's top-k gives.

    Raises:
        UsageError: ``count`` of ``what`` is more than :data:`TOP_K_LIMIT`.
    """
    if count > TOP_K_LIMIT:
        raise UsageError(
            f"{count} {what} are more than the {TOP_K_LIMIT} that TensorRT's top-k gives.",
            fix="Ask for fewer, with --box-candidates or --detections.",
        )


def rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows of values (N, A, k) at index (N, K): (N, K, k)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def descending(scores: Tensor) -> Tensor:
    """Order of scores (N, K), the highest first and equal ones as they stand; int64 (N, K).

    More than :data:`TOP_K_LIMIT` are sorted by two top-k, of the highest and of the lowest.
    """
    count = scores.shape[1]
    if count <= TOP_K_LIMIT:
        return scores.topk(count, dim=1).indices
    require_top_k(count - TOP_K_LIMIT, "candidates in all less those that one top-k takes")
    highest = scores.topk(TOP_K_LIMIT, dim=1).indices
    # Mirrored, so that of equal scores at the seam each stands in one half only.
    mirrored = scores.flip(1).topk(count - TOP_K_LIMIT, dim=1, largest=False).indices
    return torch.cat([highest, count - 1 - mirrored.flip(1)], dim=1)


def best(found: Candidates, keep: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The surest survivors of all groups.

    Args:
        found: the candidates.
        keep: bool (N, G, K), what survived the suppression.
        most: K of the result.

    Returns:
        boxes (N, most, 4), scores (N, most), labels int64 (N, most), filled with zeros, and count
        int64 (N,).
    """
    scores = torch.where(keep, found.scores, -1.0).flatten(1)
    taken = min(most, scores.shape[1])
    top, index = scores.topk(taken, dim=1)
    there = top >= 0
    boxes = rows(found.boxes.flatten(1, 2), index) * there[..., None]
    labels = found.labels.flatten(1).gather(1, index) * there
    scores = torch.where(there, top, 0.0)
    short = most - taken
    return (
        F.pad(boxes, (0, 0, 0, short)),
        F.pad(scores, (0, short)),
        F.pad(labels, (0, short)),
        there.sum(dim=1),
    )

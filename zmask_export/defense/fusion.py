"""The Fusion and Detection Block (Section 3.2, Eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PARAMETERS = ("w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4")
"""Order of the eight parameters in a calibration file."""


def soft_threshold(x: Tensor, w: Tensor, b: Tensor, v: Tensor, c: Tensor) -> Tensor:
    """One soft-thresholding block: sigmoid(v tanh(w x + b) + c), in (0, 1)."""
    return torch.sigmoid(v * torch.tanh(w * x + b) + c)


def deep_gate(deep: Tensor, parameters: Tensor) -> Tensor:
    """g: the first block, on HD. Same shape as ``deep``, in (0, 1)."""
    return soft_threshold(deep, *parameters[:4])


def soft_mask(shallow: Tensor, deep: Tensor, parameters: Tensor) -> Tensor:
    """M~: the second block on g * HS.

    Args:
        shallow: HS (N, 1, HR, WR).
        deep: HD (N, 1, HR, WR).
        parameters: the eight parameters (8,), ordered as :data:`PARAMETERS`.
    """
    return soft_threshold(deep_gate(deep, parameters) * shallow, *parameters[4:])


def score(shallow: Tensor, deep: Tensor, mask: Tensor) -> Tensor:
    """d = sum(HS * HD * M~) / sum(M~) per image, (N,); 0 where the soft mask sums to 0."""
    total = mask.sum(dim=(1, 2, 3))
    weighted = (shallow * deep * mask).sum(dim=(1, 2, 3))
    return weighted / torch.where(total > 0, total, 1.0)


def nearest_indices(size_out: int, size_in: int) -> Tensor:
    """Source index of each output position, nearest neighbour with half-pixel centres (int64)."""
    return (2 * torch.arange(size_out) + 1) * size_in // (2 * size_out)


def fill_corners(covered: Tensor, reach: int) -> Tensor:
    """Cover a cell too where its row and its column both hold a covered cell within ``reach``.

    Products of averages round a patch's corners off; straight edges stay where they are. Not in the
    paper: see ``DefenseSpec.corners``.

    Args:
        covered: bool (N, 1, HR, WR).
        reach: in cells; 0 changes nothing.
    """
    cells = covered.float()
    across = F.max_pool2d(cells, (1, 2 * reach + 1), stride=1, padding=(0, reach))
    down = F.max_pool2d(cells, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    return (across > 0) & (down > 0)


def keep_mask(soft: Tensor, flag: Tensor, size: tuple[int, int], corners: int = 0) -> Tensor:
    """M of Eq. 4 at image resolution: 1 = keep, 0 = covered.

    Args:
        soft: M~ (N, 1, HR, WR).
        flag: bool (N,); unflagged images keep every pixel.
        size: (H, W) of the image.
        corners: reach of :func:`fill_corners`.

    Returns:
        Float (N, 1, H, W) of zeros and ones.
    """
    covered = fill_corners(soft > 0.5, corners) & flag[:, None, None, None]
    rows = nearest_indices(size[0], soft.shape[2]).to(soft.device)
    columns = nearest_indices(size[1], soft.shape[3]).to(soft.device)
    return (~covered[:, :, rows][:, :, :, columns]).to(soft.dtype)


@dataclass(frozen=True)
class Detection:
    """What the defense says about a batch.

    Attributes:
        shallow, deep: HS, HD (N, 1, HR, WR).
        soft_mask: M~ (N, 1, HR, WR) in (0, 1).
        score: d (N,).
        flag: d > threshold, bool (N,); True where d is not a number.
        mask: M (N, 1, H, W), 1 = keep, 0 = covered; all 1 where d is not a number.
    """

    shallow: Tensor
    deep: Tensor
    soft_mask: Tensor
    score: Tensor
    flag: Tensor
    mask: Tensor


def detect(
    image: Tensor,
    shallow: Tensor,
    deep: Tensor,
    parameters: Tensor,
    threshold: Tensor,
    corners: int = 0,
) -> Detection:
    """Fusion, score, flag and mask of a batch (Eq. 4).

    Args:
        image: the batch (N, 3, H, W); d of an image that is not finite is NaN, whatever the network makes
            of it.
        shallow: HS (N, 1, HR, WR).
        deep: HD (N, 1, HR, WR).
        parameters: (8,).
        threshold: lambda0, a scalar tensor.
        corners: reach of :func:`fill_corners`.
    """
    soft = soft_mask(shallow, deep, parameters)
    finite = image.abs().sum(dim=(1, 2, 3)).isfinite()
    d = torch.where(finite, score(shallow, deep, soft), torch.nan)
    # Written so that a score that is not a number raises the flag.
    flag = ~(d <= threshold)
    # Where d is not a number nothing is known of where: nothing is covered.
    mask = keep_mask(soft, d > threshold, (image.shape[2], image.shape[3]), corners)
    return Detection(shallow, deep, soft, d, flag, mask)

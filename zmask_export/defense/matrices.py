"""R and A_i as matrices: exact, in float64, without torch.

A stage P = R(A(R(z))) acts on rows and columns separately, so P = L z W^T with
L = R(HR <- HR - k + 1) Box(k) R(HR <- h), and the same along the width.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from zmask_export.spec import Registration

Matrix = NDArray[np.float64]


def resize_matrix(size_in: int, size_out: int) -> Matrix:
    """Bilinear interpolation with half-pixel centres, as a (size_out, size_in) matrix."""
    if size_in == size_out:
        return np.eye(size_in)
    position = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5
    position = np.clip(position, 0, size_in - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size_in - 1)
    weight = position - low
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, low), 1 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix


def box_matrix(size: int, kernel: int, registration: Registration) -> Matrix:
    """Average pooling at stride 1.

    ``paper``: (size - kernel + 1, size), windows inside only. ``aligned``: (size, size), windows
    centred and clipped at the border.
    """
    if registration == "paper":
        starts = np.arange(size - kernel + 1)
        stops = starts + kernel
    else:
        centres = np.arange(size)
        starts = np.maximum(centres - (kernel - 1) // 2, 0)
        stops = np.minimum(centres + kernel // 2 + 1, size)
    columns = np.arange(size)
    inside = (columns >= starts[:, None]) & (columns < stops[:, None])
    return inside / (stops - starts)[:, None]


@functools.lru_cache(maxsize=256)
def stage_matrices(size_in: int, kernel: int, grid: int, registration: Registration) -> Matrix:
    """R(A(R(.))) along one axis, as a (grid, size_in) matrix. Do not write into it."""
    box = box_matrix(grid, kernel, registration)
    matrix = resize_matrix(box.shape[0], grid) @ box @ resize_matrix(size_in, grid)
    matrix.setflags(write=False)
    return matrix

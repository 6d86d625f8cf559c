"""How each tap's cascade is lowered to matrix products.

Every stage is P_i = L_i z W_i^T. Stages that S and D have in common at one tap are
computed once. Taps with many channels run as a loop over blocks of channels that carries
sum |Q_m| and max |Q_{m-1}|, so that memory does not grow with the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zmask_export.defense.matrices import Matrix, stage_matrices
from zmask_export.spec import DefenseSpec, Registration, Size

DEFAULT_BLOCK = 16
"""Channels a loop iteration on a CPU; small blocks stay in cache."""


@dataclass(frozen=True)
class Stage:
    """One P_i as matrices.

    Attributes:
        key: names the stage: kernels up to and including this one.
        left: L (HR, h).
        right: W^T (w, WR).
        order: which product comes first; the cheaper one.
    """

    key: tuple[Size, ...]
    left: Matrix
    right: Matrix
    order: Literal["left", "right"]


@dataclass(frozen=True)
class TapPlan:
    """The lowering of one tap.

    Attributes:
        tap: its name.
        shape: (C, h, w).
        block: channels a loop iteration, or None for all at once.
        branches: "shallow" and/or "deep" to their stages, in order; equal keys share a stage.
    """

    tap: str
    shape: tuple[int, int, int]
    block: int | None
    branches: dict[str, tuple[Stage, ...]]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all distinct stages, for one image."""
        stages = {stage.key: stage for chain in self.branches.values() for stage in chain}
        channels, h, w = self.shape
        return channels * sum(
            min(_cost(h, w, stage.left.shape[0], stage.right.shape[1])) for stage in stages.values()
        )


def plan_taps(
    defense: DefenseSpec,
    shapes: dict[str, tuple[int, int, int]],
    block: int = DEFAULT_BLOCK,
) -> list[TapPlan]:
    """Lower every tap of the defense.

    Args:
        defense: taps, kernels, grid, registration.
        shapes: tap to (C, h, w).
        block: most channels a loop iteration may take.
    """
    plans = []
    for tap in defense.taps:
        channels, h, w = shapes[tap]
        stages: dict[tuple[Size, ...], Stage] = {}
        branches = {}
        for branch, taps, kernels in defense.branches():
            if tap not in taps:
                continue
            chain = []
            for depth in range(1, len(kernels) + 1):
                key = kernels[:depth]
                if key not in stages:
                    stages[key] = _stage(key, h, w, defense.grid, defense.registration)
                chain.append(stages[key])
            branches[branch] = tuple(chain)
        plans.append(TapPlan(tap, shapes[tap], block_size(channels, block), branches))
    return plans


def block_size(channels: int, most: int) -> int | None:
    """The largest divisor of ``channels`` up to ``most``; None where a loop would not pay."""
    best = max(size for size in range(1, most + 1) if channels % size == 0)
    return best if best >= 4 and channels >= 2 * best else None


def _cost(h: int, w: int, grid_h: int, grid_w: int) -> tuple[int, int]:
    left_first = grid_h * h * w + grid_h * w * grid_w
    right_first = h * w * grid_w + grid_h * h * grid_w
    return left_first, right_first


def _stage(key: tuple[Size, ...], h: int, w: int, grid: Size, registration: Registration) -> Stage:
    kernel = key[-1]
    left_first, right_first = _cost(h, w, *grid)
    return Stage(
        key,
        stage_matrices(h, kernel[0], grid[0], registration),
        stage_matrices(w, kernel[1], grid[1], registration).T,
        "left" if left_first < right_first else "right",
    )

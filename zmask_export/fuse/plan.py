"""How each tap's cascade is lowered to matrix products: the cheapest of several exact forms.

Every stage is P = L z W^T. The axis that is contracted first is laid in front of the channels, so that a
strip of its result needs one contiguous slice of z: an average over a short kernel has narrow bands, and
what is zero in a strip is not multiplied. A tap may be resized onto the grid first; its stages then start
from there. Stages that S and D have in common at one tap are computed once. Taps with many channels run as
a loop over blocks of channels that carries sum |Q_m| and max |Q_{m-1}|, so that memory does not grow with
the channels.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from typing import Literal

from zmask_export.defense.matrices import Matrix, box_matrix, resize_matrix, stage_matrices
from zmask_export.fuse.bands import Stage, cut
from zmask_export.fuse.costs import CPU, Cost, Machine, product_cost
from zmask_export.spec import DefenseSpec, Registration, Size

Axis = Literal["rows", "columns"]
STRIPS = (1, 2, 3, 4, 6, 8)
"""Numbers of strips that are tried."""
BLOCKS = (4, 8, 16, 32, 64)
"""Most channels of a loop iteration that are tried."""


@dataclass(frozen=True)
class Lowering:
    """One exact form of a tap's cascade.

    Attributes:
        axis: which axis of z is contracted in strips.
        strips: into how many strips the grid is cut along that axis.
        resized: whether z is resized onto the grid before the stages.
        block: channels a loop iteration, or None for all at once.
    """

    axis: Axis
    strips: int
    resized: bool
    block: int | None

    def __str__(self) -> str:
        block = "all channels" if self.block is None else f"{self.block} channels"
        first = "resized, " if self.resized else ""
        cut = "" if self.strips == 1 else f" in {self.strips} strips"
        return f"{first}{self.axis}{cut}, {block}"


@dataclass(frozen=True)
class TapPlan:
    """The lowering of one tap.

    Attributes:
        tap: its name.
        shape: (C, h, w).
        lowering: the chosen form.
        resize: onto the grid, where the form asks for it.
        branches: "shallow" and/or "deep" to their stages, in order; equal keys share a stage.
        cost: what it takes for one image.
    """

    tap: str
    shape: tuple[int, int, int]
    lowering: Lowering
    resize: Stage | None
    branches: dict[str, tuple[Stage, ...]]
    cost: Cost

    @property
    def block(self) -> int | None:
        """Channels a loop iteration, or None for all at once."""
        return self.lowering.block

    @property
    def stages(self) -> dict[tuple[Size, ...], Stage]:
        """Distinct stages by key, each after the one before it."""
        return {stage.key: stage for chain in self.branches.values() for stage in chain}

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all distinct stages, for one image."""
        return self.cost.multiply_adds


def plan_taps(
    defense: DefenseSpec,
    shapes: dict[str, tuple[int, int, int]],
    machine: Machine = CPU,
    form: Lowering | None = None,
) -> list[TapPlan]:
    """Lower every tap of the defense, each in its cheapest form.

    Args:
        defense: taps, kernels, grid, registration.
        shapes: tap to (C, h, w).
        machine: whose time counts.
        form: takes this form for all taps instead, with blocks that divide their channels.
    """
    plans = []
    for tap in defense.taps:
        if form is not None:
            block = None if form.block is None else block_size(shapes[tap][0], form.block)
            given = replace(form, block=block)
            plans.append(plan_tap(defense, tap, shapes[tap], given, machine))
            continue
        found = candidates(defense, tap, shapes[tap], machine)
        fitting = [p for p in found if p.cost.scratch_bytes <= machine.most_scratch]
        fitting = fitting or [min(found, key=lambda plan: plan.cost.scratch_bytes)]
        plans.append(min(fitting, key=lambda plan: plan.cost.seconds))
    return plans


def candidates(
    defense: DefenseSpec, tap: str, shape: tuple[int, int, int], machine: Machine = CPU
) -> list[TapPlan]:
    """Every form that a tap can be lowered to, with its cost."""
    axes: tuple[Axis, ...] = ("rows", "columns")
    sizes = dict.fromkeys(block_size(shape[0], most) for most in BLOCKS)
    blocks: list[int | None] = [size for size in sizes if size is not None]
    blocks = [None] if shape[0] <= machine.unlooped else [None, *blocks]
    plans = []
    for axis, resized, block in itertools.product(axes, (False, True), blocks):
        for count in STRIPS if block is None else machine.looped_strips:
            if count == 1 or defense.grid[axis == "columns"] >= 8 * count:
                lowering = Lowering(axis, count, resized, block)
                plans.append(plan_tap(defense, tap, shape, lowering, machine))
    return plans


def plan_tap(
    defense: DefenseSpec,
    tap: str,
    shape: tuple[int, int, int],
    lowering: Lowering,
    machine: Machine = CPU,
) -> TapPlan:
    """A tap in a given form."""
    stages: dict[tuple[Size, ...], Stage] = {}
    branches = {}
    for branch, taps, kernels in defense.branches():
        if tap not in taps:
            continue
        chain = []
        for depth in range(1, len(kernels) + 1):
            key = kernels[:depth]
            if key not in stages:
                stages[key] = _stage(key, shape[1:], defense.grid, defense.registration, lowering)
            chain.append(stages[key])
        branches[branch] = tuple(chain)
    resize = _resize(shape[1:], defense.grid, lowering) if lowering.resized else None
    cost = _cost(shape[0], lowering, resize, branches, machine)
    return TapPlan(tap, shape, lowering, resize, branches, cost)


def block_size(channels: int, most: int) -> int | None:
    """The largest divisor of ``channels`` up to ``most``; None where a loop would not pay."""
    best = max(size for size in range(1, most + 1) if channels % size == 0)
    return best if best >= 4 and channels >= 2 * best else None


def _stage(
    key: tuple[Size, ...], size: Size, grid: Size, registration: Registration, lowering: Lowering
) -> Stage:
    matrices = [
        _pooled(n, kernel, cells, registration, resized=lowering.resized)
        for n, kernel, cells in zip(size, key[-1], grid, strict=True)
    ]
    return _cut(key, matrices, lowering)


def _resize(size: Size, grid: Size, lowering: Lowering) -> Stage:
    matrices = [resize_matrix(n, cells) for n, cells in zip(size, grid, strict=True)]
    return _cut((), matrices, lowering)


def _cut(key: tuple[Size, ...], matrices: list[Matrix], lowering: Lowering) -> Stage:
    first, second = matrices if lowering.axis == "rows" else reversed(matrices)
    return cut(key, first, second, lowering.strips)


@functools.lru_cache(maxsize=256)
def _pooled(
    n: int, kernel: int, cells: int, registration: Registration, *, resized: bool
) -> Matrix:
    if not resized:
        return stage_matrices(n, kernel, cells, registration)
    box = box_matrix(cells, kernel, registration)
    return resize_matrix(box.shape[0], cells) @ box


def _cost(
    channels: int,
    lowering: Lowering,
    resize: Stage | None,
    branches: dict[str, tuple[Stage, ...]],
    machine: Machine,
) -> Cost:
    block = lowering.block or channels
    stages = {stage.key: stage for chain in branches.values() for stage in chain}
    chains = list(branches.values())
    folded = len({chain[-1].key for chain in chains}) + len(
        {chain[-2].key for chain in chains if len(chain) > 1}
    )
    some = resize or next(iter(stages.values()))
    cost = Cost.copy(block * some.first.shape[1] * some.second.shape[1], machine)
    if resize is not None:
        cost += product_cost(resize, block, machine)
    for stage in stages.values():
        cost += product_cost(stage, block, machine)
        cells = block * stage.first.shape[0] * stage.second.shape[0]
        if len(stage.key) > 1:
            cost += Cost.passes(cells, 3, lowering.strips, machine)
    cells = block * some.first.shape[0] * some.second.shape[0]
    cost += Cost.passes(cells * folded, 3, 3 * lowering.strips * folded, machine)
    return cost.repeated(channels // block)

"""plan: what the cascades of a network will be lowered to, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from zmask_export.calibrate.candidates import Shape
from zmask_export.defense.pooling import additions
from zmask_export.fuse.costs import CPU, GPU, SMALL_GPU
from zmask_export.fuse.plan import TapPlan, candidates, plan_taps
from zmask_export.pipeline.network import OpenNetwork
from zmask_export.spec import DefenseSpec

MachineName = Literal["cpu", "gpu", "small-gpu"]
MACHINES = {"cpu": CPU, "gpu": GPU, "small-gpu": SMALL_GPU}


@dataclass(frozen=True)
class CascadePlan:
    """The plans of a network's taps.

    Attributes:
        machine: what they are planned for.
        taps: the chosen form of each tap.
        others: every form of each tap, the chosen one among them, cheapest first.
        literal: additions of Eq. 3 as written for the same taps, for one image.
    """

    machine: MachineName
    taps: tuple[TapPlan, ...]
    others: dict[str, tuple[TapPlan, ...]]
    literal: dict[str, int]

    def record(self, *, everything: bool = False) -> dict[str, Any]:
        """For JSON; ``everything`` adds the forms that were not chosen."""
        rows = []
        for plan in self.taps:
            row = _row(plan) | {"literal_additions": self.literal[plan.tap]}
            if everything:
                row["forms"] = [_row(other) for other in self.others[plan.tap]]
            rows.append(row)
        return {"machine": self.machine, "taps": rows}


def plan_network(opened: OpenNetwork, machine: MachineName = "cpu") -> CascadePlan:
    """Plan the cascades of an opened network's defense.

    Args:
        opened: the network.
        machine: what to plan for.

    Raises:
        UsageError: a tap names no layer.
        ShapeError: a tap is no map, or the network refuses the input size.
    """
    defense = opened.defense
    shapes = tap_shapes(opened, defense)
    rates = MACHINES[machine]
    forms = {
        tap: tuple(
            sorted(candidates(defense, tap, shapes[tap], rates), key=lambda p: p.cost.seconds)
        )
        for tap in defense.taps
    }
    literal = {
        tap: shapes[tap][0]
        * sum(
            additions(kernel, defense.grid, defense.registration)
            for _, taps, kernels in defense.branches()
            if tap in taps
            for kernel in kernels
        )
        for tap in defense.taps
    }
    return CascadePlan(machine, tuple(plan_taps(defense, shapes, rates)), forms, literal)


def tap_shapes(opened: OpenNetwork, defense: DefenseSpec) -> dict[str, Shape]:
    """(C, h, w) of every tap at the network's input size."""
    with torch.inference_mode():
        _, features = opened.bare(defense)(torch.full((1, 3, *opened.input_size), 0.5))
    return {tap: (h.shape[1], h.shape[2], h.shape[3]) for tap, h in features.items()}


def _row(plan: TapPlan) -> dict[str, Any]:
    cost = plan.cost
    return {
        "tap": plan.tap,
        "shape": list(plan.shape),
        "axis": plan.lowering.axis,
        "strips": plan.lowering.strips,
        "resized": plan.lowering.resized,
        "block": plan.lowering.block,
        "multiply_adds": cost.multiply_adds,
        "bytes": cost.bytes,
        "calls": cost.calls,
        "scratch_bytes": cost.scratch_bytes,
        "weight_bytes": cost.weight_bytes,
        "estimated_seconds": cost.seconds,
    }

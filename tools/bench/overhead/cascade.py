"""The cascade stage alone: literal against deployed, tap by tap, on the z-scores of a frame.

The literal form is Eq. 3 as written: each A_i one 2-D average pooling, for every layer and set by itself.
The package's reference takes each mean as two 1-D means, which is the same and far cheaper: this is what
the cascade costs where nobody thinks about it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lowerings import cascade_graph
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from overhead.graphs import Graphs
from overhead.record import Cascade, TapCascade
from zmask_export.defense.cascade import literal_heatmap
from zmask_export.defense.pooling import resize
from zmask_export.defense.zmask import Heatmaps
from zmask_export.fuse.plan import TapPlan
from zmask_export.profiling.sessions import bound, open_session
from zmask_export.profiling.timing import ratio, spread, take_turns, total
from zmask_export.spec import DefenseSpec, Registration, Size

Maps = dict[str, NDArray[np.floating[Any]]]
"""Branch to heatmap (1, 1, HR, WR)."""


def average(x: Tensor, kernel: Size, registration: Registration) -> Tensor:
    """A_i; see ``zmask_export.defense.pooling.average_pool`` for the two registrations."""
    if registration == "paper":
        return F.avg_pool2d(x, kernel, stride=1)
    kh, kw = kernel
    around = ((kw - 1) // 2, kw // 2, (kh - 1) // 2, kh // 2)
    inside = F.avg_pool2d(F.pad(x.new_ones(1, 1, *x.shape[2:]), around), kernel, stride=1)
    return F.avg_pool2d(F.pad(x, around), kernel, stride=1) / inside


def heatmap_as_written(
    z: Tensor, kernels: Sequence[Size], grid: Size, registration: Registration
) -> Tensor:
    """H(l) (N, 1, HR, WR) of z-scores (N, C, h, w), in the memory layout that ``z`` has."""
    a = torch.ones(z.shape[0], 1, *grid, dtype=z.dtype, device=z.device)
    for kernel in kernels:
        norm = a.abs().amax(dim=(1, 2, 3), keepdim=True)
        scaled = torch.where(norm > 0, a / torch.where(norm > 0, norm, 1.0), 0.0)
        pooled = resize(average(resize(z, grid), kernel, registration), grid)
        a = pooled * scaled
    return a.abs().mean(dim=1, keepdim=True)


def zscores(graphs: Graphs) -> dict[str, Tensor]:
    """z-scores (1, C, h, w) of every tap, of a drawn scene."""
    calibration = graphs.calibration
    bare = graphs.opened.bare(calibration.header.defense)
    with torch.inference_mode():
        _, features = bare(torch.from_numpy(graphs.images(1)))
        return Heatmaps.of(calibration).zscores(features)


def literal_maps(z: Tensor, tap: str, defense: DefenseSpec) -> Maps:
    """Heatmaps of one tap by Eq. 3 as written."""
    return _maps(heatmap_as_written, z, tap, defense)


def exact_maps(z: Tensor, tap: str, defense: DefenseSpec) -> Maps:
    """Heatmaps of one tap by Eq. 3 in float64, with each mean as two 1-D means."""
    return _maps(literal_heatmap, z.double(), tap, defense)


def _maps(form: Callable[..., Tensor], z: Tensor, tap: str, defense: DefenseSpec) -> Maps:
    with torch.inference_mode():
        return {
            branch: form(z, kernels, defense.grid, defense.registration).numpy()
            for branch, taps, kernels in defense.branches()
            if tap in taps
        }


def deployed_maps(plan: TapPlan, z: Tensor, defense: DefenseSpec, threads: int) -> Maps:
    """Heatmaps of one tap by the deployed graph."""
    session = open_session(cascade_graph(plan, defense.grid), threads)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"z": z.numpy()}), strict=True))


def deployed_run(
    plan: TapPlan, z: Tensor, defense: DefenseSpec, threads: int
) -> Callable[[], None]:
    """One run of one tap's deployed graph, from contiguous z-scores that lie there."""
    return bound(open_session(cascade_graph(plan, defense.grid), threads), {"z": z.numpy()})


def compare(graphs: Graphs, plans: Sequence[TapPlan], rounds: int, threads: int) -> Cascade:
    """Time both forms in turns and compare their heatmaps.

    Args:
        graphs: of the network.
        plans: of the taps to compare.
        rounds: how often each form runs; the literal one may take minutes.
        threads: of ONNX Runtime; PyTorch has its own setting.
    """
    defense = graphs.calibration.header.defense
    scores = zscores(graphs)
    cases: dict[tuple[str, str], Callable[[], object]] = {}
    expected: dict[str, Maps] = {}
    got: dict[str, Maps] = {}
    for plan in plans:
        tap, z = plan.tap, scores[plan.tap].contiguous()
        got[tap] = deployed_maps(plan, z, defense, threads)
        last = z.contiguous(memory_format=torch.channels_last)
        literal = functools.partial(literal_maps, tap=tap, defense=defense)
        deployed = deployed_run(plan, z, defense, threads)
        # The literal form takes too long to need a warm-up.
        deployed()
        cases["literal", tap] = _kept(expected, tap, functools.partial(literal, z))
        cases["channels last", tap] = functools.partial(literal, last)
        cases["deployed", tap] = deployed
    times = take_turns(cases, rounds, warmups=0)
    apart = {tap: differences(got[tap], expected[tap]) for tap in got}
    errors = {}
    for tap in got:
        exact = exact_maps(scores[tap], tap, defense)
        errors[tap] = [differences(maps[tap], exact)[0] for maps in (expected, got)]
    sums = {
        form: total([taken for (name, _), taken in times.items() if name == form])
        for form, _ in times
    }
    return Cascade(
        taps=tuple(
            TapCascade(
                tap=plan.tap,
                shape=plan.shape,
                lowering=str(plan.lowering),
                literal_ms=spread(times["literal", plan.tap]),
                channels_last_ms=spread(times["channels last", plan.tap]),
                deployed_ms=spread(times["deployed", plan.tap]),
                difference=apart[plan.tap][0],
                pointwise_difference=apart[plan.tap][1],
                literal_error=errors[plan.tap][0],
                deployed_error=errors[plan.tap][1],
            )
            for plan in plans
        ),
        speedup=ratio(sums["literal"], sums["deployed"]),
        channels_last_speedup=ratio(sums["channels last"], sums["deployed"]),
        worst_difference=max(over_top for over_top, _ in apart.values()),
        worst_error=max(deployed for _, deployed in errors.values()),
    )


def differences(got: Maps, expected: Maps) -> tuple[float, float]:
    """Worst difference of any heatmap, over its maximum and over each cell's own value."""
    over_top, over_cell = [], []
    for branch, reference in expected.items():
        error = np.abs(got[branch].astype(np.float64) - reference)
        over_top.append(float(error.max() / max(float(reference.max()), 1e-30)))
        over_cell.append(float((error / np.maximum(reference, 1e-30)).max()))
    return max(over_top), max(over_cell)


def _kept(results: dict[str, Maps], tap: str, run: Callable[[], Maps]) -> Callable[[], None]:
    """The same run, whose last result stays: the literal form is too slow to run once more for it."""

    def kept() -> None:
        results[tap] = run()

    return kept

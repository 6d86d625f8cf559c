"""select: images and a patch to a proposal of S and D (A.3 leaves an automatic choice open)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from zmask_export.artifacts.files import require_writable, write_text
from zmask_export.calibrate.candidates import Shape, find_candidates
from zmask_export.calibrate.evidence import Evidence, LayerQuality, Quality, Taps, observe
from zmask_export.calibrate.selection import most_sets, propose, require_affordable
from zmask_export.calibrate.statistics import measure
from zmask_export.data.images import ImageSource
from zmask_export.defense.zmask import Heatmaps
from zmask_export.errors import DatasetError, UsageError
from zmask_export.fuse.plan import plan_taps
from zmask_export.models.bare import tap_paths
from zmask_export.pipeline.network import OpenNetwork
from zmask_export.pipeline.plan import tap_shapes
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.spec import DefenseSpec


@dataclass(frozen=True)
class SelectOptions:
    """How to choose.

    Attributes:
        candidates: taps to choose from, Table 1's names or module paths; none for the network's stages.
        budget: most multiply-adds of the cascades, as a multiple of what the present sets take.
        seed: of patch placements.
    """

    candidates: Taps = ()
    budget: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Layer:
    """One layer that was looked at.

    Attributes:
        tap: its name.
        shape: (C, h, w).
        quality: what it does alone, on all images.
        shallow_cost, deep_cost: multiply-adds of its cascade in S and in D, for one image.
    """

    tap: str
    shape: Shape
    quality: LayerQuality
    shallow_cost: int
    deep_cost: int


@dataclass(frozen=True)
class TapSets:
    """S and D.

    Attributes:
        shallow, deep: the taps.
        quality: on the images that had no part in the choice.
        multiply_adds: of all cascades, for one image.
    """

    shallow: Taps
    deep: Taps
    quality: Quality
    multiply_adds: int


@dataclass(frozen=True)
class Selection:
    """What was found.

    Attributes:
        images: how many images were used.
        layers: all layers looked at, best first.
        proposed: the proposal.
        present: the sets that the network has now.
    """

    images: int
    layers: tuple[Layer, ...]
    proposed: TapSets
    present: TapSets


def select_taps(
    opened: OpenNetwork,
    images: ImageSource,
    attack: Sequence[Tensor],
    options: SelectOptions | None = None,
    *,
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> Selection:
    """Rank layers and propose S and D within a budget.

    Two passes over the images: statistics, then heatmaps. Sets are chosen on every second image and
    reported on the others. The present sets are proposed where nothing within the budget is better.

    Args:
        opened: the network; its defense gives kernels, grid, registration and the present sets.
        images: clean images.
        attack: patches (3, h, w).
        options: see :class:`SelectOptions`.
        out: where the proposal shall be saved; a place that cannot be written is refused at once.
        reporter: shows progress.

    Raises:
        DatasetError: there is no patch, or fewer than two images.
        ImageError, PatchError, WeightsError: see ``measure`` and ``observe``.
        UsageError: a candidate is no layer or named twice, or nothing is within the budget.
        ShapeError: a candidate's output is no map.
        OutputError: ``out`` cannot be written.
    """
    options = options or SelectOptions()
    reporter = reporter or Silent()
    if out is not None:
        require_writable(out)
    if not 0 < options.budget < math.inf:
        raise UsageError(f"{options.budget} is no budget.", fix="Give a number above 0, such as 1.")
    if not attack:
        raise DatasetError("Taps cannot be chosen without a patch.", fix="Give one with --patch.")
    present = opened.defense
    candidates = _candidates(opened, options.candidates)
    # The present sets are measured whether or not they may be chosen: they are what to compare with.
    layers = tuple(dict.fromkeys((*candidates, *present.taps)))
    everything = DefenseSpec.model_validate(
        present.model_dump() | {"shallow": layers, "deep": layers}
    )
    shapes = tap_shapes(opened, everything)

    @functools.cache
    def of_tap(tap: str, shallow: bool, deep: bool) -> int:
        alone = {"shallow": (tap,) * shallow, "deep": (tap,) * deep}
        (plan,) = plan_taps(everything.model_copy(update=alone), shapes)
        return plan.multiply_adds

    def cost(shallow: Taps, deep: Taps) -> int:
        taps = dict.fromkeys((*shallow, *deep))
        return sum(of_tap(tap, tap in shallow, tap in deep) for tap in taps)

    budget = int(options.budget * cost(present.shallow, present.deep))
    require_affordable(candidates, cost, budget)
    evidence = _look(opened, everything, images, attack, options.seed, reporter)
    training, held_out = evidence.every_second(0), evidence.every_second(1)
    with reporter.bar("choosing", most_sets(len(candidates))) as advance:
        chosen = propose(training, candidates, cost, budget, on_set=advance)
        advance(most_sets(len(candidates)))
    own = (present.shallow, present.deep)
    if set(present.taps) <= set(candidates) and cost(*own) <= budget:
        chosen = max(own, chosen, key=lambda sets: training.judge(*sets).value)
    ranked = [
        Layer(tap, shapes[tap], evidence.layer(tap), cost((tap,), ()), cost((), (tap,)))
        for tap in layers
    ]
    return Selection(
        images=len(evidence.target),
        layers=tuple(sorted(ranked, key=lambda layer: -layer.quality.value)),
        proposed=TapSets(*chosen, held_out.judge(*chosen), cost(*chosen)),
        present=TapSets(*own, held_out.judge(*own), cost(*own)),
    )


def save_preset(opened: OpenNetwork, selection: Selection, out: Path) -> None:
    """Write the network's preset with the proposed sets, as YAML.

    It names no weights, calibration or patch: statistics of other taps do not fit.

    Raises:
        OutputError: it cannot be written.
    """
    changed = {
        "about": f"{opened.preset.about} Taps chosen on {selection.images} images.",
        "input_size": opened.input_size,
        "shallow": selection.proposed.shallow,
        "deep": selection.proposed.deep,
        "registration": opened.defense.registration,
        "fill": opened.defense.fill,
        "corners": opened.defense.corners,
    }
    record = opened.preset.model_copy(update=changed).model_dump(
        mode="json", exclude={"weights", "calibration", "patch"}
    )
    write_text(out, yaml.safe_dump(record, sort_keys=False, default_flow_style=None, width=100))


def _candidates(opened: OpenNetwork, named: Taps) -> Taps:
    if len(set(named)) != len(named):
        raise UsageError("A candidate is named twice.", fix="Name each layer once.")
    if named:
        return named
    names = {path: tap for tap, path in opened.entry.taps.items()}
    present = tap_paths(opened.entry, opened.defense.taps)
    found = find_candidates(opened.bare(), opened.input_size, keep=tuple(present.values()))
    return tuple(names.get(path, path) for path in found)


def _look(
    opened: OpenNetwork,
    everything: DefenseSpec,
    images: ImageSource,
    attack: Sequence[Tensor],
    seed: int,
    reporter: Reporter,
) -> Evidence:
    """Both passes: statistics, then heatmaps."""
    bare = opened.bare(everything)
    with reporter.bar("statistics", len(images.names)) as advance:
        moments = measure(
            bare,
            images,
            batch=1,
            on_image=advance,
            on_skip=lambda error: reporter.note(f"left out: {error.what}"),
        ).moments
    heatmaps = Heatmaps(
        everything,
        {tap: torch.from_numpy(m.mean).float() for tap, m in moments.items()},
        {tap: torch.from_numpy(m.std()).float() for tap, m in moments.items()},
        form="deployed",
    )
    frames = (frame.image for frame in images.frames() if frame is not None)
    with reporter.bar("heatmaps", len(images.names)) as advance:
        return observe(bare, heatmaps, frames, attack, seed=seed, on_image=advance)

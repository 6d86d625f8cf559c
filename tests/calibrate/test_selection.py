from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.calibrate.layers import (
    IMAGES,
    SIDE,
    evidence_of,
    half_of_patch,
    heatmaps_of,
    patch_cells,
)
from zmask_export.calibrate.evidence import Evidence
from zmask_export.calibrate.selection import MIN_GAIN, MOST_TAPS, most_sets, propose
from zmask_export.errors import UsageError


def _count(shallow: Sequence[str], deep: Sequence[str]) -> int:
    return len(shallow) + len(deep)


def test_the_seeing_layer_is_proposed() -> None:
    evidence = evidence_of({"blind": None, "eye": patch_cells(), "noise": None})
    assert propose(evidence, ("blind", "eye", "noise"), _count, 99) == (("eye",), ("eye",))
    shallow, deep = propose(evidence, ("blind", "noise"), _count, 99)
    assert "eye" not in (*shallow, *deep)


def test_layers_that_see_half_a_patch_each_are_proposed_together_in_s() -> None:
    layers = {"left": half_of_patch(True), "right": half_of_patch(False), "blind": None}
    evidence = evidence_of(layers)
    shallow, deep = propose(evidence, tuple(layers), _count, 99)
    assert set(shallow) == {"left", "right"}
    assert len(deep) == 1
    assert evidence.judge(shallow, deep).value > evidence.judge(("left",), ("left",)).value + 0.3


def test_layers_that_see_half_of_the_patches_each_are_proposed_together_in_d() -> None:
    odd = torch.arange(IMAGES)[:, None, None] % 2 == 1
    layers = {"odd": patch_cells() & odd, "even": patch_cells() & ~odd, "blind": None}
    evidence = evidence_of(layers | {"eye": patch_cells()})
    shallow = {"odd": evidence.shallow["eye"], "even": evidence.shallow["eye"]}
    evidence = Evidence(
        shallow | {"blind": evidence.shallow["blind"]}, evidence.deep, evidence.target
    )
    assert evidence.layer("odd").deep.auc < 0.95
    assert set(propose(evidence, tuple(layers), _count, 99)[1]) == {"odd", "even"}


@pytest.mark.parametrize(("budget", "taken"), [(2, 2), (3, 3), (9, 3)])
def test_the_budget_holds(budget: int, taken: int) -> None:
    layers = {"left": half_of_patch(True), "right": half_of_patch(False)}
    shallow, deep = propose(evidence_of(layers), tuple(layers), _count, budget)
    assert len(shallow) + len(deep) == taken


def test_sets_have_a_largest_size() -> None:
    columns = torch.arange(SIDE)
    rows = [patch_cells().float().cumsum(1) == row for row in (1, 2, 3, 4)]
    pieces = [patch_cells() & row & sides for row in rows for sides in (columns < 4, columns >= 4)]
    layers = {f"l{index}": piece for index, piece in enumerate(pieces)}
    assert sum(int(piece.sum()) for piece in pieces) == int(patch_cells().sum())
    shallow, _ = propose(evidence_of(layers), tuple(layers), _count, 99)
    assert len(shallow) == MOST_TAPS < len(layers)


def test_of_equal_layers_the_cheaper_is_proposed() -> None:
    prices = {"dear": 5, "cheap": 2}
    maps = {tap: heatmaps_of(patch_cells()) for tap in prices}
    evidence = Evidence(maps, maps, patch_cells().flatten(1))

    def cost(shallow: Sequence[str], deep: Sequence[str]) -> int:
        return sum(prices[tap] for tap in (*shallow, *deep))

    assert propose(evidence, ("dear", "cheap"), cost, 99) == (("cheap",), ("cheap",))


def test_a_budget_for_nothing_is_refused() -> None:
    evidence = evidence_of({"eye": patch_cells()})
    with pytest.raises(UsageError, match=r"within 1 multiply-adds; the cheapest takes 2") as caught:
        propose(evidence, ("eye",), _count, 1)
    assert "--budget" in caught.value.fix


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), budget=st.integers(2, 9))
def test_no_affordable_pair_beats_the_proposal(seed: int, budget: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pieces = [patch_cells() & (torch.rand(SIDE, SIDE, generator=generator) < 0.6) for _ in range(4)]
    layers = {f"l{index}": piece for index, piece in enumerate(pieces)}
    evidence = evidence_of(layers)
    prices = dict(zip(layers, (1, 2, 3, 4), strict=True))

    def cost(shallow: Sequence[str], deep: Sequence[str]) -> int:
        return sum(prices[tap] for tap in (*shallow, *deep))

    judged: list[int] = []
    shallow, deep = propose(evidence, tuple(layers), cost, budget, on_set=judged.append)
    assert cost(shallow, deep) <= budget
    assert 1 <= len(set(shallow)) == len(shallow) <= MOST_TAPS
    assert judged == list(range(1, len(judged) + 1))
    assert len(judged) <= most_sets(len(layers))
    value = evidence.judge(shallow, deep).value
    for s in layers:
        for d in layers:
            if cost((s,), (d,)) <= budget:
                assert evidence.judge((s,), (d,)).value <= value
    if len(shallow) + len(deep) > 2:
        pairs = max(
            evidence.judge((s,), (d,)).value
            for s in layers
            for d in layers
            if cost((s,), (d,)) <= budget
        )
        assert value >= pairs + MIN_GAIN

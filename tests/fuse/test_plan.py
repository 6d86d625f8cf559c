from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small import tiny_defense
from zmask_export.defense.cascade import literal_heatmap
from zmask_export.defense.matrices import stage_matrices
from zmask_export.fuse.costs import CPU, GPU, SMALL_GPU
from zmask_export.fuse.plan import Lowering, TapPlan, block_size, candidates, plan_tap, plan_taps
from zmask_export.spec import DefenseSpec, Registration

SHAPES = {"stem": (8, 24, 32), "mid": (128, 12, 16), "tip": (16, 6, 8)}


def plans() -> dict[str, TapPlan]:
    return {plan.tap: plan for plan in plan_taps(tiny_defense(), SHAPES)}


@pytest.mark.parametrize(
    ("channels", "most", "expected"),
    [
        (1024, 16, 16),
        (32, 16, 16),
        (16, 16, None),  # one iteration is no loop
        (24, 16, 12),
        (17, 16, None),  # a prime: blocks of one channel
        (34, 16, None),  # blocks of two
        (8, 4, 4),
        (64, 1, None),
    ],
)
def test_block_divides_the_channels(channels: int, most: int, expected: int | None) -> None:
    assert block_size(channels, most) == expected


def test_first_kernel_in_common_is_planned_once() -> None:
    branches = plans()["mid"].branches
    assert branches["shallow"][0] is branches["deep"][0]
    assert branches["shallow"][1] is not branches["deep"][1]
    assert [stage.key[-1] for stage in branches["shallow"]] == [(6, 8), (3, 4), (2, 3)]


def test_tap_of_one_set_has_that_branch_alone() -> None:
    assert set(plans()["stem"].branches) == {"shallow"}
    assert set(plans()["tip"].branches) == {"deep"}
    assert set(plans()["mid"].branches) == {"shallow", "deep"}


def test_taps_loop_where_their_maps_do_not_fit() -> None:
    little = replace(CPU, most_scratch=100_000)
    found = {plan.tap: plan.block for plan in plan_taps(tiny_defense(), SHAPES, little)}
    assert found["mid"] is not None
    assert found["stem"] is found["tip"] is None
    assert plans()["mid"].block is None


def test_where_nothing_fits_the_smallest_form_is_taken() -> None:
    none = replace(CPU, most_scratch=1)
    for plan in plan_taps(tiny_defense(), SHAPES, none):
        found = candidates(tiny_defense(), plan.tap, plan.shape, none)
        assert plan.cost.scratch_bytes == min(p.cost.scratch_bytes for p in found)


def test_few_channels_never_loop_on_a_gpu() -> None:
    many = {"stem": (64, 240, 320), "mid": (1024, 60, 80), "tip": (32, 60, 80)}
    blocks = {plan.tap: plan.block for plan in plan_taps(tiny_defense(), many, GPU)}
    assert blocks["stem"] is blocks["tip"] is None
    assert blocks["mid"] is not None
    small = {plan.tap: plan.block for plan in plan_taps(tiny_defense(), many, SMALL_GPU)}
    assert small["stem"] is not None


@pytest.mark.parametrize("registration", ["paper", "aligned"])
@pytest.mark.parametrize("tap", list(SHAPES))
def test_every_form_has_the_same_stages(tap: str, registration: Registration) -> None:
    defense = tiny_defense(registration)
    shape = SHAPES[tap]
    for plan in candidates(defense, tap, shape):
        rows = plan.lowering.axis == "rows"
        for stage in plan.stages.values():
            first, second = stage.first, stage.second
            if plan.resize is not None:
                first, second = first @ plan.resize.first, second @ plan.resize.second
            left, right = (first, second) if rows else (second, first)
            for matrix, size, kernel, cells in zip(
                (left, right), shape[1:], stage.key[-1], defense.grid, strict=True
            ):
                whole = stage_matrices(size, kernel, cells, registration)
                np.testing.assert_allclose(matrix, whole, atol=1e-12)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    axis=st.sampled_from(["rows", "columns"]),
    strips=st.integers(1, 5),
    resized=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_strips_hold_all_that_is_not_zero(
    size: tuple[int, int], axis: str, strips: int, resized: bool
) -> None:
    form = Lowering(axis, strips, resized, None)  # type: ignore[arg-type]
    plan = plan_tap(tiny_defense(), "stem", (3, *size), form)
    for stage in (*plan.stages.values(), *([plan.resize] if plan.resize else [])):
        rebuilt = np.zeros_like(stage.first)
        for strip in stage.strips:
            part = slice(strip.start, strip.stop), slice(strip.low, strip.high)
            rebuilt[part] = stage.first[part]
        np.testing.assert_array_equal(rebuilt, stage.first)
        ends = [(strip.start, strip.stop) for strip in stage.strips]
        assert ends[0][0] == 0
        assert ends[-1][1] == len(stage.first)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))


def test_the_cheaper_product_comes_first() -> None:
    def tall_first(h: int, w: int) -> bool:
        form = Lowering("rows", 1, False, None)
        stage = next(iter(plan_tap(tiny_defense(), "stem", (4, h, w), form).stages.values()))
        return stage.first_first(stage.strips[0])

    assert tall_first(100, 5)
    assert not tall_first(5, 100)


def test_cost_counts_what_is_multiplied() -> None:
    form = Lowering("rows", 1, False, None)
    plan = plan_tap(tiny_defense(), "mid", SHAPES["mid"], form)
    one = min(12 * 12 * 16 + 12 * 16 * 17, 12 * 16 * 17 + 12 * 12 * 17)
    # Four distinct stages: the first is shared by S and D.
    assert plan.multiply_adds == 128 * 4 * one


def test_strips_save_multiplications_where_kernels_are_short() -> None:
    defense = DefenseSpec(
        shallow=("a",),
        deep=("a",),
        shallow_kernels=((3, 3),),
        deep_kernels=((3, 3),),
        grid=(64, 64),
    )

    def work(strips: int) -> int:
        return plan_tap(
            defense, "a", (4, 64, 64), Lowering("rows", strips, False, None)
        ).multiply_adds

    assert work(8) < 0.7 * work(1)


def test_the_chosen_form_is_the_cheapest_that_fits() -> None:
    for tap, plan in plans().items():
        found = candidates(tiny_defense(), tap, SHAPES[tap])
        fitting = [p for p in found if p.cost.scratch_bytes <= CPU.most_scratch]
        assert plan.cost.seconds == min(p.cost.seconds for p in fitting)


def test_looping_costs_less_memory_and_more_calls() -> None:
    def cost(block: int | None) -> tuple[int, int]:
        plan = plan_tap(tiny_defense(), "mid", SHAPES["mid"], Lowering("rows", 1, False, block))
        return plan.cost.scratch_bytes, plan.cost.calls

    assert cost(16)[0] < cost(None)[0]
    assert cost(16)[1] > cost(None)[1]


def test_multiply_adds_of_a_strip_are_those_of_the_cheaper_order() -> None:
    plan = plan_tap(tiny_defense(), "stem", SHAPES["stem"], Lowering("columns", 2, False, None))
    stage = next(iter(plan.stages.values()))
    strip = stage.strips[0]
    height, depth = strip.stop - strip.start, strip.high - strip.low
    g2, n2 = stage.second.shape
    orders = height * depth * n2 + height * n2 * g2, depth * n2 * g2 + height * depth * g2
    assert stage.multiply_adds(strip) == min(orders)


def test_literal_reference_agrees_with_the_planned_matrices() -> None:
    defense = tiny_defense("paper")
    shape = SHAPES["stem"]
    z = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = plan_tap(defense, "stem", shape, Lowering("columns", 2, True, None))
    assert plan.resize is not None
    product = np.ones(1)
    before = product
    for stage in plan.branches["shallow"]:
        left = stage.second @ plan.resize.second
        right = stage.first @ plan.resize.first
        before, product = product, product * (left @ z.numpy() @ right.T)
    heatmap = np.abs(product).mean(axis=1) / np.abs(before).max()
    expected = literal_heatmap(z, defense.shallow_kernels, defense.grid, "paper")[:, 0].numpy()
    np.testing.assert_allclose(heatmap, expected, rtol=1e-9)

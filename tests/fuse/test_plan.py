from __future__ import annotations

import pytest

from tests.small import tiny_defense
from zmask_export.fuse.plan import TapPlan, block_size, plan_taps

SHAPES = {"stem": (8, 24, 32), "mid": (32, 12, 16), "tip": (16, 6, 8)}


def plans(block: int = 16) -> dict[str, TapPlan]:
    return {plan.tap: plan for plan in plan_taps(tiny_defense(), SHAPES, block)}


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


def test_large_taps_loop_and_small_ones_do_not() -> None:
    assert {tap: plan.block for tap, plan in plans().items()} == {
        "stem": None,
        "mid": 16,
        "tip": None,
    }


def test_matrices_have_the_shapes_of_tap_and_grid() -> None:
    for tap, plan in plans().items():
        for chain in plan.branches.values():
            for stage in chain:
                assert stage.left.shape == (12, SHAPES[tap][1])
                assert stage.right.shape == (SHAPES[tap][2], 17)


def test_the_cheaper_product_comes_first() -> None:
    def order(h: int, w: int) -> str:
        defense = tiny_defense().model_copy(update={"shallow": ("stem",), "deep": ("stem",)})
        return plan_taps(defense, {"stem": (4, h, w)})[0].branches["deep"][0].order

    assert order(100, 5) == "left"
    assert order(5, 100) == "right"


def test_shared_stages_are_counted_once() -> None:
    plan = plans()["mid"]
    one = 32 * min(12 * 12 * 16 + 12 * 16 * 17, 12 * 16 * 17 + 12 * 12 * 17)
    assert plan.multiply_adds == 4 * one

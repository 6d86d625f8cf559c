from __future__ import annotations

import pytest

from zmask_export.drift.rates import rate


def test_the_interval_of_none_and_of_all_is_the_closed_form() -> None:
    none = rate(0, 100, error=0.05)
    assert (none.share, none.lower) == (0, 0)
    assert none.upper == pytest.approx(1 - 0.025 ** (1 / 100))
    every = rate(10, 10, error=0.05)
    assert (every.share, every.upper) == (1, 1)
    assert every.lower == pytest.approx(0.025 ** (1 / 10))


def test_of_no_frame_everything_is_possible() -> None:
    assert rate(0, 0, error=0.01).model_dump() == {
        "frames": 0, "flagged": 0, "share": None, "lower": 0, "upper": 1,
    }  # fmt: skip

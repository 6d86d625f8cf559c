from __future__ import annotations

import time

import numpy as np
import pytest
from overhead.floor import _CACHED, _LARGE, _PRODUCT, Work, rate_cases, rates, tap_floor
from overhead.record import Rates

from tests.small import tiny_defense
from zmask_export.fuse.plan import TapPlan, plan_taps
from zmask_export.profiling.timing import take_turns

SHAPES = {"stem": (8, 24, 32), "mid": (32, 12, 16), "tip": (16, 6, 8)}


def _plan() -> TapPlan:
    return plan_taps(tiny_defense(), SHAPES)[0]


def test_the_floor_is_the_slower_of_products_and_bytes() -> None:
    plan = _plan()
    slow_products = Rates(gflops=0.1, cached_gbs=100.0, copy_gbs=10.0)
    found = tap_floor(plan, slow_products, measured_ms=7.0)
    assert found.floor_ms == found.compute_ms > found.move_ms
    # Two operations a multiply-add, at 1e8 a second.
    assert found.compute_ms == pytest.approx(plan.multiply_adds * 2 / 1e8 * 1e3)
    assert found.move_ms == pytest.approx(plan.cost.bytes / 100e9 * 1e3)
    slow_memory = Rates(gflops=1e6, cached_gbs=0.1, copy_gbs=0.01)
    found = tap_floor(plan, slow_memory, measured_ms=7.0)
    assert found.floor_ms == found.move_ms > found.compute_ms
    assert found.measured_ms == 7.0


def test_a_plan_is_not_slower_than_its_floor_by_a_slow_copy() -> None:
    fast_copy = Rates(gflops=1e6, cached_gbs=1.0, copy_gbs=2.0)
    found = tap_floor(_plan(), fast_copy, measured_ms=1.0)
    assert found.move_ms == pytest.approx(_plan().cost.bytes / 2e9 * 1e3)


def test_a_rate_is_of_the_best_round() -> None:
    work = Work(side=100, cached=1000, large=3000)
    found = rates(work, {_PRODUCT: [4.0, 2.0], _CACHED: [1.0, 2.0], _LARGE: [0.5]})
    assert found.gflops == pytest.approx(2 * 100**3 / 2e-3 / 1e9)
    # 64 products of 1000 numbers and 2 of 3000, each 12 bytes a number.
    assert found.cached_gbs == pytest.approx(64 * 12000 / 1e-3 / 1e9)
    assert found.copy_gbs == pytest.approx(2 * 36000 / 0.5e-3 / 1e9)


def test_the_work_is_done() -> None:
    work = Work(side=256, cached=1 << 12, large=1 << 20)
    times = take_turns(rate_cases(work, threads=1), rounds=2)
    found = rates(work, times)
    # A core does no less than 0.1 and no more than 1000 GFLOP/s, and moves bytes accordingly.
    assert 0.1 < found.gflops < 1000
    assert 0.1 < found.cached_gbs < 10000
    assert 0.1 < found.copy_gbs < 10000


def test_threads_of_a_session_stop_spinning_with_the_run() -> None:
    run = rate_cases(Work(side=256, cached=64, large=64), threads=2)[_PRODUCT]
    used = []
    for _ in range(10):
        run()
        before = time.process_time()
        time.sleep(0.01)
        used.append(time.process_time() - before)
    # Spinning, they take milliseconds of it.
    assert np.median(used) < 1e-3

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

import pytest

from zmask_export.profiling.timing import (
    PATIENCE,
    middle_half,
    ratio,
    rest,
    spread,
    take_turns,
    total,
)


def test_cases_take_turns_and_warm_ups_do_not_count() -> None:
    order: list[str] = []
    cases = {name: functools.partial(order.append, name) for name in "abc"}
    times = take_turns(cases, rounds=2, warmups=1)
    # Each case has every place once.
    assert "".join(order) == "abcbcacab"
    assert {name: len(taken) for name, taken in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_times_are_milliseconds_of_the_run_alone() -> None:
    times = take_turns({"long": lambda: time.sleep(0.03), "short": lambda: None}, rounds=3)
    assert min(times["long"]) >= 30
    assert min(times["short"]) < 3  # though it waits for its turn


def test_a_ratio_is_taken_round_by_round() -> None:
    # A machine that changes its speed changes it for both.
    assert ratio([20.0, 200.0, 2000.0], [10.0, 100.0, 1000.0]).rounds == (2.0, 2.0, 2.0)
    found = ratio([1.0, 2.0, 100.0], [2.0, 1.0, 10.0])
    assert found.rounds == (0.5, 2.0, 10.0)
    assert found.median == 2.0  # the medians' ratio is 1


def test_ratios_need_as_many_rounds() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_a_spread_is_median_and_quartiles() -> None:
    found = spread([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (found.lower, found.median, found.upper) == (2.0, 3.0, 4.0)
    assert found.rounds == (5.0, 1.0, 4.0, 2.0, 3.0)


def test_a_total_adds_up_each_round() -> None:
    assert total([[1.0, 2.0], [10.0, 20.0]]) == [11.0, 22.0]


def _waits_for_a_busy_thread() -> bool:
    end = time.perf_counter() + 0.06

    def spin() -> None:
        while time.perf_counter() < end:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    rest()
    waited = time.perf_counter() >= end
    thread.join()
    return waited


def _waits_no_longer_than_its_patience() -> bool:
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    started = time.perf_counter()
    rest()
    waited = time.perf_counter() - started
    done.set()
    thread.join()
    return PATIENCE <= waited < 10 * PATIENCE


@pytest.mark.parametrize("does", [_waits_for_a_busy_thread, _waits_no_longer_than_its_patience])
def test_nothing_is_timed_before_threads_rest(does: Callable[[], bool]) -> None:
    # Where other processes take the cores, a busy thread may get none of them and look idle.
    assert any(does() for _ in range(10))


def test_an_idle_process_is_not_waited_for() -> None:
    def waited() -> float:
        started = time.perf_counter()
        rest()
        return time.perf_counter() - started

    assert min(waited() for _ in range(5)) < PATIENCE / 2


def test_time_ends_the_rounds_but_not_before_the_least() -> None:
    done: list[int] = []
    cases = {"slow": lambda: time.sleep(0.02)}
    few = take_turns(cases, 1000, seconds=0.0, at_least=4, on_round=done.append)
    assert len(few["slow"]) == 4
    assert done == [1, 2, 3, 4]
    some = take_turns(cases, 1000, seconds=0.2)
    assert 1 <= len(some["slow"]) < 12


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (3, 3), (4, 2), (9, 5), (12, 6)])
def test_the_middle_half(count: int, kept: int) -> None:
    found = middle_half(list(range(count)))
    assert len(found) == kept
    assert sum(found) / kept == pytest.approx((count - 1) / 2)

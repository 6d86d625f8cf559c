from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmask_export.profiling.latency import latency


def test_statistics_of_known_runs() -> None:
    found = latency([float(value) for value in range(1, 102)], batch=4)
    assert (found.runs, found.mean, found.max) == (101, 51.0, 101.0)
    assert (found.p50, found.p90, found.p99) == (51.0, 91.0, 100.0)
    assert found.images_per_second == pytest.approx(4 / 0.051)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50))
def test_percentiles_stand_in_order(values: list[float]) -> None:
    found = latency(values, batch=1)
    assert min(values) <= found.p50 <= found.p90 <= found.p99 <= found.max
    assert found.mean == pytest.approx(np.mean(values))

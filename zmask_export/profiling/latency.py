"""What the times of many runs amount to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zmask_export.spec import Spec


class Latency(Spec):
    """Milliseconds of the runs of one case, and images a second with one run after the other.

    Percentiles are of the ``runs`` that were made, interpolated: p99 of fewer than a hundred leans on the
    slowest one.
    """

    runs: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    images_per_second: float


def latency(values: Sequence[float], batch: int) -> Latency:
    """Statistics of runs.

    Args:
        values: milliseconds of every run.
        batch: images a run.
    """
    p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
    mean = float(np.mean(values))
    return Latency(
        runs=len(values),
        mean=mean,
        p50=p50,
        p90=p90,
        p99=p99,
        max=max(values),
        images_per_second=batch * 1e3 / mean,
    )

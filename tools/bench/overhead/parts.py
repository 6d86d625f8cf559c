"""Where a run's time goes, by the package's own attribution of ONNX Runtime's profile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from overhead.record import Parts
from zmask_export.profiling.frames import Frame, feed
from zmask_export.profiling.parts import mean, profiled
from zmask_export.profiling.sessions import bound


def profile(
    model: bytes,
    images: NDArray[np.float32],
    *,
    case: str,
    frame: Frame | None,
    threads: int,
    rounds: int,
) -> Parts:
    """Profile a graph on the CPU and attribute its time; the mean of the rounds after a warm-up.

    Args:
        model: the graph.
        images: float32 (N, 3, H, W) in [0, 1].
        case: what it is called.
        frame: which branch the gate shall take.
        threads: of the session.
        rounds: runs that count.
    """
    with profiled(model, threads) as session:
        run = bound(session.session, feed(images, frame))
        for _ in range(1 + rounds):
            run()
        found = mean(session.runs()[1:])
    return Parts(
        case=case,
        frame=frame,
        batch=len(images),
        total_ms=found.total_ms,
        parts_ms=found.parts_ms,
    )

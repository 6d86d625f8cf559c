"""The figures that a release should keep, beside what was measured.

They hold for one frame at a time in ONNX Runtime on the CPU, and for engines of one frame.
"""

from __future__ import annotations

from collections.abc import Iterator

from overhead.record import Bar, Record, Timing
from zmask_export.models import registry

SPEEDUP = {"icnet": 250.0}
"""Literal cascade stage over the deployed one."""
DIFFERENCE = 1e-5
"""Between two heatmaps over the maximum: deployed and literal, deployed and float64."""
ONE_PASS = {"icnet": 1.25}
"""``detect``, and a clean ``gated`` frame, over bare."""
ONE_PASS_PAPER = {"ddrnet": 1.4, "bisenet": 1.4}
"""The same, stated for the paper's preset alone."""
ONE_PASS_DETECTOR = 1.5
TWO_PASSES = {"icnet": 2.0}
"""An attacked ``gated`` frame over bare."""
ACTIVATIONS = 1.25
"""Activation memory of the ``detect`` engine over the bare one's."""
WEIGHTS = 1.05
"""Weights of the ``gated`` engine over the bare one's."""

_RUNNER = "onnxruntime-cpu"


def bars_of(record: Record) -> list[Bar]:
    """Every bar that the record has a figure for."""
    return [*_stage(record), *_policies(record), *_memory(record)]


def _stage(record: Record) -> Iterator[Bar]:
    found = record.cascade
    if found is None:
        return
    least = SPEEDUP.get(record.model)
    if least is not None and len(found.taps) == len(record.taps):
        name = "cascade stage, literal over deployed"
        yield Bar(what=name, measured=found.speedup.median, limit=least, at="least")
    yield _most(
        "worst difference of any heatmap to the literal one, over its maximum",
        found.worst_difference,
        DIFFERENCE,
    )
    yield _most(
        "worst difference of any heatmap to Eq. 3 in float64", found.worst_error, DIFFERENCE
    )


def _policies(record: Record) -> Iterator[Bar]:
    one_pass = ONE_PASS | (ONE_PASS_PAPER if record.preset == "paper" else {})
    one_pass |= dict.fromkeys(registry.names("detection"), ONE_PASS_DETECTOR)
    limits = {
        ("detect", "clean"): one_pass.get(record.model),
        ("gated", "clean"): one_pass.get(record.model),
        ("gated", "attacked"): TWO_PASSES.get(record.model),
    }
    found = {
        (timing.case, timing.frame): timing
        for timing in record.timings
        if (timing.runner, timing.batch) == (_RUNNER, 1)
    }
    for (case, frame), limit in limits.items():
        timing = found.get((case, frame))
        if limit is not None and timing is not None and timing.over_bare is not None:
            floor = _floor(record, timing, found[("bare", None)])
            measured = timing.over_bare.median
            yield _most(f"{case}, {frame} frame, over bare", measured, limit, floor)


def _floor(record: Record, timing: Timing, bare: Timing) -> float | None:
    """The ratio with what the cascades take above their floor taken away."""
    if record.floor is None or timing.over_bare is None:
        return None
    above = record.floor.measured_ms - record.floor.floor_ms
    return timing.over_bare.median - above / bare.ms.median


def _memory(record: Record) -> Iterator[Bar]:
    for engine in record.memory:
        if (engine.flavour, engine.batch) != ("tensorrt-rtx", 1):
            continue
        if engine.case == "detect" and engine.activations_over_bare is not None:
            what = "detect engine, activation memory over bare"
            yield _most(what, engine.activations_over_bare, ACTIVATIONS)
        if engine.case == "gated" and engine.weights_over_bare is not None:
            yield _most("gated engine, weights over bare", engine.weights_over_bare, WEIGHTS)


def _most(what: str, measured: float, limit: float, floor: float | None = None) -> Bar:
    return Bar(what=what, measured=measured, limit=limit, at="most", floor=floor)

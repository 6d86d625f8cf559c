"""The record as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from overhead.record import Bar, Cascade, Curve, EngineMemory, Floor, Parts, Record, Timing
from zmask_export.profiling.parts import PARTS, RUNTIME
from zmask_export.profiling.timing import Spread


def show(record: Record, console: Console) -> None:
    """Print everything that the record holds, the bars last."""
    machine = record.machine
    changed = ", tree changed since" if machine.dirty else ""
    (h, w), grid = record.input_size, record.grid
    console.print(
        f"{record.model}, {h} x {w}, preset {record.preset}, weights {record.weights}; "
        f"grid {grid[0]} x {grid[1]}, {record.registration}; commit {machine.commit}{changed}"
    )
    console.print(
        f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads, load {machine.load:.1f} "
        f"before; ONNX Runtime {machine.versions.onnxruntime}, torch {machine.versions.torch}; "
        f"GPUs: {', '.join(machine.gpus) or 'none'}"
    )
    for table in _tables(record):
        console.print(table)
    for left in record.left_out:
        console.print(f"left out: {left.what}. {left.reason}")


def _tables(record: Record) -> Iterator[Table]:
    if record.timings:
        yield _timings(record.timings)
    if record.parts:
        yield _parts(record.parts)
    if record.cascade is not None:
        yield _cascade(record.cascade)
    if record.floor is not None:
        yield _floor(record.floor)
    if record.memory:
        yield _memory(record.memory)
    for curve in record.scaling:
        yield _curve(curve)
    if record.bars:
        yield _bars(record.bars)


def _timings(timings: Sequence[Timing]) -> Table:
    return _table(
        "Time a run: median (quartiles)",
        ("runner", "case", "frame", "batch", "ms", "over bare", "over deployed"),
        [
            (
                *(t.runner, t.case, t.frame or "", str(t.batch)),
                *(_spread(t.ms, 1), _spread(t.over_bare, 3), _spread(t.over_deployed, 2)),
            )
            for t in timings
        ],
    )


def _parts(found: Sequence[Parts]) -> Table:
    names = [name for name in (*PARTS, RUNTIME) if any(one.share(name) > 0 for one in found)]
    return _table(
        "Where the time goes, ms, ONNX Runtime's profile on the CPU",
        ("case", "frame", "batch", "total", *names),
        [
            (
                *(one.case, one.frame or "", str(one.batch), f"{one.total_ms:.1f}"),
                *(f"{one.share(name):.1f}" for name in names),
            )
            for one in found
        ],
    )


def _cascade(cascade: Cascade) -> Table:
    rows = [
        (
            *(tap.tap, " x ".join(map(str, tap.shape)), tap.lowering),
            *(_spread(tap.literal_ms, 0), _spread(tap.channels_last_ms, 0)),
            *(
                _spread(tap.deployed_ms, 1),
                f"{tap.difference:.1e}",
                f"{tap.pointwise_difference:.1e}",
            ),
            *(f"{tap.literal_error:.1e}", f"{tap.deployed_error:.1e}"),
        )
        for tap in cascade.taps
    ]
    speedups = (_spread(cascade.speedup, 0), _spread(cascade.channels_last_speedup, 0))
    worst = (f"{cascade.worst_difference:.1e}", "", "", f"{cascade.worst_error:.1e}")
    rows.append(("all", "", "over deployed", *speedups, "1", *worst))
    return _table(
        "Cascade stage, ms: Eq. 3 as written in PyTorch, and as deployed in ONNX Runtime; how far the two "
        "are apart, over a heatmap's maximum and cell by cell, and each off float64, over the maximum",
        (
            *("tap", "shape", "form", "literal", "channels last", "deployed"),
            *("apart", "a cell", "literal off", "deployed off"),
        ),
        rows,
    )


def _floor(floor: Floor) -> Table:
    rates = floor.rates
    return _table(
        f"Floor of the cascade's plan: matrix product {rates.gflops:.0f} GFLOP/s, element-wise product "
        f"{rates.cached_gbs:.0f} GB/s in cache, {rates.copy_gbs:.0f} GB/s out of it",
        (
            "tap",
            "G multiply-adds",
            "MB moved",
            "products ms",
            "bytes ms",
            "measured ms",
            "over floor",
        ),
        [
            (
                *(tap.tap, f"{tap.multiply_adds / 1e9:.2f}", f"{tap.bytes / 1e6:.0f}"),
                *(f"{tap.compute_ms:.1f}", f"{tap.move_ms:.1f}", f"{tap.measured_ms:.1f}"),
                f"{tap.measured_ms / tap.floor_ms:.2f}",
            )
            for tap in floor.taps
        ]
        + [
            (
                "all",
                *[""] * 4,
                f"{floor.measured_ms:.1f}",
                f"{floor.measured_ms / floor.floor_ms:.2f}",
            )
        ],
    )


def _memory(engines: Sequence[EngineMemory]) -> Table:
    return _table(
        "Engines, as the compiler says",
        ("flavour", "engine", "batch", "activations MiB", "over bare", "weights MiB", "over bare"),
        [
            (
                *(engine.flavour, engine.case, str(engine.batch)),
                *(f"{engine.activation_bytes / 2**20:.1f}", _number(engine.activations_over_bare)),
                *(f"{engine.weight_bytes / 2**20:.2f}", _number(engine.weights_over_bare)),
            )
            for engine in engines
        ],
    )


def _curve(curve: Curve) -> Table:
    return _table(
        f"Scaling over {curve.over}: {curve.what}",
        (curve.over, "protected ms", "bare ms", "over bare"),
        [
            (p.label, _spread(p.protected_ms, 1), _spread(p.bare_ms, 1), _spread(p.over_bare, 3))
            for p in curve.points
        ],
    )


def _bars(bars: Sequence[Bar]) -> Table:
    return _table(
        "Bars",
        ("figure", "measured", "bar", "", "with the cascade at its floor"),
        [
            (
                *(bar.what, f"{bar.measured:.5g}", f"at {bar.at} {bar.limit:g}"),
                *("kept" if bar.kept else "missed", _number(bar.floor)),
            )
            for bar in bars
        ],
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


def _spread(value: Spread | None, digits: int) -> str:
    if value is None:
        return ""
    median, lower, upper = (
        f"{number:.{digits}f}" for number in (value.median, value.lower, value.upper)
    )
    return median if len(value.rounds) == 1 else f"{median} ({lower}-{upper})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

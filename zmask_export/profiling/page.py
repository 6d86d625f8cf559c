"""The bundle's report: what it costs, and the parity and calibration that it was built with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zmask_export.artifacts.manifest import Manifest
from zmask_export.evaluate.page import Figure, Page, Section, Table, Tile, Value
from zmask_export.profiling.plots import BETWEEN, PART_COLOURS, latency_plot, parts_plot
from zmask_export.profiling.record import Case, LatencyReport

_MIB = 1 << 20
_PART_NAMES = {"zscore": "z-score", "second_pass": "second pass"}


def report_page(
    report: LatencyReport,
    manifest: Manifest,
    quality: Sequence[Section],
    examples: Sequence[Figure],
) -> Page:
    """The page.

    Args:
        report: what was measured.
        manifest: of the bundle.
        quality: what the bundle's other files say, see :mod:`zmask_export.profiling.quality`.
        examples: pictures of frames and of what the engine says of them.
    """
    machine = report.machine
    height, width = report.input_size
    facts = (
        ("Network", f"{report.model}, {height} x {width}, policy {report.policy.value}"),
        ("Machine", f"{machine.cpu}, {machine.threads} of {machine.cores} cores"),
        ("GPU", ", ".join(machine.gpus) or "none"),
        ("Runner", f"{report.runner}, {_runtime_version(report)}"),
        ("Load before", f"{machine.load:.2f} processes{_noisy(report)}"),
        ("Written by", f"zmask-export {report.tool_version}"),
    )
    sections = [_latency(report), _parts(report), _taps(report)]
    sections += [_memory(report)] if report.memory else []
    sections += [_engines(report)] if report.engines else []
    sections += quality
    if examples:
        text = "Frames, and what the engine says of them at the calibrated threshold: "
        text += "the prediction over the image, covered pixels hatched in magenta."
        sections.append(Section("Examples", (text,), figures=tuple(examples)))
    sections += [_settings(manifest), _method(report)]
    title = f"{report.name}: report of the bundle"
    return Page(title, facts, tuple(sections), tiles=tuple(_tiles(report)))


def _tiles(report: LatencyReport) -> Iterator[Tile]:
    batch = report.batches[0]
    clean = report.find("protected", "clean", batch)
    attacked = report.find("protected", "attacked", batch)
    bare = report.find("bare", None, batch)
    of = f"median, batch {batch}"
    yield Tile("Clean frame", f"{clean.latency.p50:.1f} ms", f"{of}; {_ratio(clean)}")
    yield Tile("Attacked frame", f"{attacked.latency.p50:.1f} ms", f"{of}; {_ratio(attacked)}")
    yield Tile("Bare network", f"{bare.latency.p50:.1f} ms", of)
    best = max(
        (report.find("protected", "clean", n) for n in report.batches),
        key=lambda case: case.latency.images_per_second,
    )
    rate = f"{best.latency.images_per_second:.1f} / s"
    yield Tile("Throughput", rate, f"clean images, batch {best.batch}")


def _latency(report: LatencyReport) -> Section:
    rows = []
    for batch in report.batches:
        for case in (c for c in report.cases if c.batch == batch):
            found = case.latency
            times = (found.p50, found.mean, found.p90, found.p99, found.max)
            spread = case.over_bare
            quartiles = "" if spread is None else f"{spread.lower:.2f} to {spread.upper:.2f}"
            rows.append(
                (
                    Value(f"{case.label}, batch {batch}"),
                    *(Value(f"{ms:.2f}") for ms in times),
                    Value(f"{found.images_per_second:.1f}"),
                    Value("" if spread is None else f"{spread.median:.2f}", quartiles),
                    Value(str(found.runs)),
                )
            )
    head = ("", "p50 ms", "mean", "p90", "p99", "max", "images/s", "over bare", "runs")
    figures = tuple(
        Figure(
            f"Every run, batch {batch}; boxes from the lower to the upper quartile, bars at the median.",
            svg=latency_plot([case for case in report.cases if case.batch == batch]),
        )
        for batch in report.batches
    )
    about = (
        "Bare is the network alone, out of the same graph, with the same options; all cases took turns, "
        "and the ratio is taken round by round (small print: its quartiles).",
    )
    return Section("Latency", about, Table(head, tuple(rows)), figures)


def _parts(report: LatencyReport) -> Section:
    found = report.parts
    head = ("", *(text for a in found for text in (f"{a.frame}, ms", "share")))
    rows = []
    for part in PART_COLOURS:
        times = [a.part(part) for a in found]
        if any(times):
            rows.append(_part_row(_PART_NAMES.get(part, part), times, report))
    rows.append(_part_row(BETWEEN, [a.between_nodes_ms for a in found], report))
    sums = [sum(a.parts_ms.values()) + a.between_nodes_ms for a in found]
    rows.append(_part_row("in sum", sums, report))
    rows.append(_part_row("measured", [a.measured_ms for a in found], report))
    about = (
        f"ONNX Runtime's own profile on the CPU, batch {found[0].batch}, by the names of the nodes. "
        "Profiled and plain runs took turns; the measured time is that of the plain ones, of both the "
        "middle half counts.",
    )
    notes = tuple(
        f"{a.frame}: writing the profile cost {a.profiler_ms:.1f} ms of {a.profiled_ms:.1f} ms, taken "
        f"off the parts by their number of steps; the parts are {a.accounted:.0%} of the measured time."
        for a in found
    )
    caption = "Where a run's time goes."
    figures = (Figure(caption, svg=parts_plot(found)),)
    return Section("Where the time goes", about, Table(head, tuple(rows)), figures, notes)


def _part_row(label: str, times: Sequence[float], report: LatencyReport) -> tuple[Value, ...]:
    row = [Value(label)]
    for ms, attribution in zip(times, report.parts, strict=True):
        row += [Value(f"{ms:.2f}"), Value(f"{ms / attribution.measured_ms:.1%}")]
    return tuple(row)


def _taps(report: LatencyReport) -> Section:
    names = sorted({part.split("/")[1] for a in report.parts for part in a.parts_ms if "/" in part})
    head = (
        "",
        *(f"{a.frame}, ms: {what}" for a in report.parts for what in ("z-score", "cascade")),
    )
    rows = tuple(
        (
            Value(tap),
            *(
                Value(f"{a.parts_ms.get(f'{part}/{tap}', 0.0):.2f}")
                for a in report.parts
                for part in ("zscore", "cascade")
            ),
        )
        for tap in names
    )
    return Section("Z-score and cascade of every tap", table=Table(head, rows))


def _memory(report: LatencyReport) -> Section:
    bare = {m.batch: m.growth.ran for m in report.memory if m.case == "bare"}
    rows = tuple(
        (
            Value(f"{m.case}, batch {m.batch}"),
            Value(f"{m.growth.loaded / _MIB:.0f}"),
            Value(f"{m.growth.ran / _MIB:.0f}"),
            Value("" if m.case == "bare" else f"{m.growth.ran / bare[m.batch]:.2f}"),
        )
        for m in report.memory
    )
    about = "Growth of the resident memory on the CPU, in a process of its own; attacked frames."
    head = ("MiB", "session open", "after runs", "over bare")
    return Section("Memory", (about,), Table(head, rows))


def _engines(report: LatencyReport) -> Section:
    rows = []
    for engine in report.engines:
        sizes = (engine.activation_bytes, engine.weight_bytes)
        rows.append(
            (
                Value(f"{engine.flavour} {engine.version}"),
                *(Value("-" if size is None else f"{size / _MIB:.1f}") for size in sizes),
                Value(str(engine.batch)),
                Value("on" if engine.tf32 else "off"),
                Value(", ".join(engine.capabilities) or "the compiler's default"),
            )
        )
    about = "What the compilers said when the bundle was built; nothing here ran these engines."
    head = ("", "activations MiB", "weights MiB", "batch", "TF32", "compute capabilities")
    return Section("Engines", (about,), Table(head, tuple(rows)))


def _settings(manifest: Manifest) -> Section:
    batch = "any" if manifest.batch is None else str(manifest.batch)
    rows = [
        ("policy", manifest.policy.value),
        ("precision", manifest.precision),
        ("threshold", f"{manifest.threshold:.6g}"),
        ("fill of covered pixels", manifest.fill),
        ("batch", batch),
        ("opset", str(manifest.opset)),
        ("classes", ", ".join(manifest.classes)),
        ("weights", manifest.weights_sha256),
        ("calibration", manifest.calibration_sha256),
        *((f"built with {name}", version) for name, version in manifest.versions.items()),
    ]
    table = Table(("", "value"), tuple((Value(a), Value(b)) for a, b in rows))
    return Section("Settings", table=table)


def _method(report: LatencyReport) -> Section:
    frames = tuple(
        f"{f.frame.capitalize()} frames ({len(f.images)}): {f.about} At the calibrated threshold "
        f"{f.flagged:.0%} of them are flagged."
        for f in report.frames
    )
    inputs = f"Graph {report.graph_sha256}. All of it took {report.seconds:.0f} s."
    found = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    left = tuple(f"Left out: {what}" for what in report.left_out)
    return Section("How it was measured", notes=(*frames, *left, inputs, f"With {found}."))


def _ratio(case: Case) -> str:
    return "" if case.over_bare is None else f"{case.over_bare.median:.2f} x bare"


def _runtime_version(report: LatencyReport) -> str:
    found = report.versions
    name = next((n for n in ("onnxruntime-gpu", "onnxruntime") if n in found), None)
    return "onnxruntime" if name is None else f"{name} {found[name]}"


def _noisy(report: LatencyReport) -> str:
    busy = report.machine.load > 0.5 * report.machine.cores
    return ": the machine was not quiet, the times are too long" if busy else ""

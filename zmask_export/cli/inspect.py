"""zmask-export inspect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import PATH, as_json, verify_key


@click.command("inspect")
@click.argument("bundle", type=PATH)
@click.option("--layers", is_flag=True, help="List every node of the graph.")
@verify_key
@as_json
def command(bundle: Path, layers: bool, verify_key: Path | None, as_json: bool) -> None:
    """Show what a bundle is: inputs, outputs, settings, files, parts of the graph.

    Checks the hash of every file, and with --verify-key the signature; runs nothing.

    \b
    Examples:
      zmask-export inspect engines/icnet
      zmask-export inspect engines/icnet --layers --json
      zmask-export inspect engines/icnet --verify-key release.pub
    """
    from zmask_export.pipeline.inspect import inspect_bundle

    found = inspect_bundle(bundle, verify_key)
    if as_json:
        left_out = None if layers else {"graph": {"layers"}}
        click.echo(found.model_dump_json(exclude=left_out))
    else:
        _show(found, layers)


def _show(found: Any, layers: bool) -> None:
    from zmask_export.cli.console import table_console

    manifest = found.manifest
    console = table_console()
    height, width = manifest.input_size
    console.print(
        f"{found.path}: {manifest.model}, {height} x {width}, policy {manifest.policy.value}, "
        f"{manifest.precision}, opset {manifest.opset}, {found.bytes / 1e6:.1f} MB; every hash holds",
        soft_wrap=True,
    )
    tensors = [
        (kind, v.name, v.dtype, " x ".join(map(str, v.shape)), v.range, v.meaning)
        for kind, values in (("in", manifest.inputs), ("out", manifest.outputs))
        for v in values
    ]
    _table("Inputs and outputs", ("", "name", "dtype", "shape", "range", "meaning"), tensors)
    _table("Settings", ("setting", "value"), _settings(found))
    if found.defense is not None:
        taps = [(tap.tap, str(tap.channels), ", ".join(tap.sets)) for tap in found.defense.taps]
        _table("Taps", ("tap", "channels", "sets"), taps)
    if found.graph is not None:
        _table("Graph", ("part", "nodes", "weights", "operators"), _parts(found.graph))
        if layers:
            rows = [(n.part, "  " * n.depth + n.name, n.operator) for n in found.graph.layers]
            _table("Layers", ("part", "node", "operator"), rows)
    if manifest.engines:
        head = ("file", "flavour", "batch", "activations", "weights", "compute capabilities")
        _table("Engines", head, [_engine(engine) for engine in manifest.engines])
    files = [(name, f"{file.bytes:,}", file.sha256) for name, file in manifest.files.items()]
    _table("Files", ("file", "bytes", "sha256"), files)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    console.print(f"Built by zmask-export {manifest.tool_version} with {versions}")
    for note in found.notes:
        console.print(note)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    from zmask_export.cli.console import table_console

    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    table_console().print(table)


def _settings(found: Any) -> list[tuple[str, str]]:
    manifest, defense = found.manifest, found.defense
    batch = "any" if manifest.batch is None else str(manifest.batch)
    rows = [
        ("threshold", f"{manifest.threshold:.6g}"),
        ("batch", batch),
        ("fill of covered pixels", manifest.fill),
        ("normalisation", manifest.preprocess.model_dump_json()),
        ("classes", ", ".join(manifest.classes)),
        ("weights", manifest.weights_sha256),
        ("calibration", manifest.calibration_sha256),
        ("signature", found.signature),
    ]
    if defense is not None:
        kernels = {"shallow": defense.shallow_kernels, "deep": defense.deep_kernels}
        rows += [
            (f"{branch} kernels", ", ".join(f"{h} x {w}" for h, w in sizes))
            for branch, sizes in kernels.items()
        ]
        rows += [
            ("grid", f"{defense.grid[0]} x {defense.grid[1]}"),
            ("registration", defense.registration),
            ("corners", str(defense.corners)),
            ("calibrated on", f"{defense.calibrated_on} images"),
        ]
        if defense.detection_auc is not None:
            rows.append(("detection AUC of the fit", f"{defense.detection_auc:.4f}"))
    return rows


def _parts(graph: Any) -> list[tuple[str, str, str, str]]:
    return [
        (
            part.part,
            str(part.nodes),
            f"{part.weight_bytes / 1e6:.2f} MB",
            ", ".join(f"{count} {name}" for name, count in list(part.operators.items())[:6]),
        )
        for part in graph.parts
    ]


def _engine(engine: Any) -> tuple[str, ...]:
    sizes = (engine.activation_bytes, engine.weight_bytes)
    return (
        engine.file,
        f"{engine.flavour} {engine.version}",
        str(engine.batch),
        *("unknown" if size is None else f"{size / 1e6:.1f} MB" for size in sizes),
        ", ".join(engine.capabilities) or "the compiler's default",
    )

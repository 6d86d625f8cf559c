"""zmask-export profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import PATH, as_json, on_bad_image, sign_key, verify_key


@click.command("profile")
@click.argument("bundle", type=PATH)
@click.option(
    "--image", "images", type=PATH, multiple=True,
    help="Clean image or folder; repeatable, as many as a batch takes. Default: drawn streets.",
)  # fmt: skip
@click.option(
    "--attacked", type=PATH, multiple=True,
    help="Attacked image or folder; repeatable. Default: the clean ones, and a threshold that makes the "
    "defense act.",
)  # fmt: skip
@click.option(
    "--batch", "batches", type=click.IntRange(1, 64), multiple=True,
    help="Images a run; repeatable. Default: 1 and 4, or the graph's own.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0), default=25.0, show_default=True,
    help="Time to measure in.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(0), default=0, show_default=True,
    help="CPU threads; 0: one a core.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Default: a GPU where there is one."
)
@click.option("--out", type=PATH, help="Folder for the results. Default: BUNDLE-profile beside it.")
@click.option("--add", is_flag=True, help="Put the results into the bundle, with their hashes.")
@sign_key
@verify_key
@on_bad_image
@as_json
def command(
    bundle: Path,
    out: Path | None,
    add: bool,
    sign_key: Path | None,
    verify_key: Path | None,
    on_bad_image: Any,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure what a bundle costs here, and write its report.

    The protected graph and the network alone, out of the same graph, run in turns; the time is attributed
    to network, z-score, cascade, fusion and second pass by ONNX Runtime's own profile. Writes latency.json
    and report.html, one page with parity, calibration and example pictures that needs nothing else.

    \b
    Examples:
      zmask-export profile engines/icnet
      zmask-export profile engines/icnet --image clean.png --attacked patched.png --batch 1 --add
      zmask-export profile engines/icnet --add --sign-key release
    """
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.errors import UsageError
    from zmask_export.pipeline import profile_files
    from zmask_export.pipeline.profile import ProfileOptions, profile_bundle
    from zmask_export.pipeline.rewrite import require_signer, rewrite

    if add and out is not None:
        raise UsageError("--add and --out exclude each other.", fix="Give one of them.")
    if sign_key is not None and not add:
        raise UsageError("--sign-key signs what --add writes.", fix="Add --add, or leave it out.")
    signer = require_signer(bundle, sign_key) if add else None
    folder = out or profile_files.default_folder(bundle)
    profile_files.require_place(bundle, None if add else folder)
    sections = profile_files.built_with(bundle, verify_key)
    reporter = ConsoleReporter()
    found = profile_bundle(
        bundle,
        ProfileOptions(on_bad=on_bad_image, verify_key=verify_key, **options),
        reporter=reporter,
    )
    files = profile_files.results(found, sections)
    if add:
        rewrite(bundle, files, signer, verify_key=verify_key)
        folder = bundle
    else:
        profile_files.write_beside(folder, files)
    for name in files:
        reporter.note(f"wrote {folder / name}")
    if as_json:
        click.echo(found.report.model_dump_json())
    else:
        _show(found.report)


def _show(report: Any) -> None:
    from rich.table import Table

    from zmask_export.cli.console import table_console

    console = table_console()
    table = Table(
        title=f"{report.name}, {report.runner}, {report.machine.threads} threads; ms a run"
    )
    table.add_column("case", no_wrap=True)
    names = ("p50", "mean", "p90", "p99", "max", "images/s", "over bare", "runs")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for case in report.cases:
        found, over = case.latency, case.over_bare
        times = (found.p50, found.mean, found.p90, found.p99, found.max)
        ratio = "" if over is None else f"{over.median:.2f} ({over.lower:.2f}-{over.upper:.2f})"
        table.add_row(
            f"{case.label}, batch {case.batch}", *(f"{ms:.2f}" for ms in times),
            f"{found.images_per_second:.1f}", ratio, str(found.runs),
        )  # fmt: skip
    console.print(table)
    parts = ("network", "zscore", "cascade", "fusion", "gate", "second_pass", "suppression")
    table = Table(title="Where the time goes, ms a run, on the CPU")
    table.add_column("part")
    for found in report.parts:
        table.add_column(f"{found.frame}, batch {found.batch}", justify="right")
    for part in parts:
        if any(found.part(part) for found in report.parts):
            table.add_row(part, *(f"{found.part(part):.2f}" for found in report.parts))
    table.add_row("between nodes", *(f"{found.between_nodes_ms:.2f}" for found in report.parts))
    table.add_row(
        "measured", *(f"{f.measured_ms:.2f} (parts {f.accounted:.0%})" for f in report.parts)
    )
    console.print(table)
    for m in report.memory:
        console.print(
            f"memory, {m.case}, batch {m.batch}: {m.growth.loaded / 1e6:.0f} MB open, "
            f"{m.growth.ran / 1e6:.0f} MB after runs"
        )

"""zmask-export run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import BACKENDS, PATH, on_bad_image, verify_key


@click.command("run")
@click.argument("bundle", type=PATH)
@click.argument("paths", type=PATH, nargs=-1, metavar="IMAGE...")
@click.option("--out", type=PATH, help="Folder for pictures and results.jsonl.")
@click.option("--threshold", type=float, help="lambda0. Default: the calibrated one.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What runs the bundle; auto takes an engine that can run here, else ONNX Runtime.",
)
@click.option(
    "--max-covered",
    type=float,
    metavar="SHARE",
    help="Mark results whose mask covers more of the image than this: trusted is then false in the line.",
)
@on_bad_image
@verify_key
def command(
    bundle: Path,
    paths: tuple[Path, ...],
    out: Path | None,
    threshold: float | None,
    backend: Any,
    max_covered: float | None,
    on_bad_image: Any,
    verify_key: Path | None,
) -> None:
    """Run images through a bundle: predictions, masks, JSON lines.

    Prints one JSON line an image. With --out it also writes the prediction in class colours, the mask
    (white = kept) and an overlay on which covered pixels are hatched.

    \b
    Examples:
      zmask-export run engines/icnet street.png --out results
      zmask-export run engines/icnet frames/ --out results > results.jsonl
      zmask-export run engines/icnet frames/ --verify-key release.pub
      zmask-export run engines/icnet frames/ --max-covered 0.5
    """
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.run import RunOptions, run
    from zmask_export.runtime.protected import load

    options = RunOptions(out, threshold, on_bad_image)
    with load(bundle, backend=backend, verify_key=verify_key, max_covered=max_covered) as engine:
        for record in run(engine, paths, options, reporter=ConsoleReporter()):
            click.echo(record.line())

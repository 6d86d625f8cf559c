"""zmask-export verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import PATH, as_json, network_from, network_options, on_bad_image


@click.command("verify")
@click.argument("bundle", type=PATH)
@network_options
@click.option("--images", type=PATH, help="Folder of images. Default: drawn street scenes.")
@click.option("--count", type=click.IntRange(1), default=2, show_default=True)
@click.option("--patch", type=PATH, help="Patch to paste. Default: the preset's, or noise.")
@on_bad_image
@as_json
def command(
    bundle: Path,
    images: Path | None,
    count: int,
    patch: Path | None,
    on_bad_image: Any,
    as_json: bool,
    **network: Any,
) -> None:
    """Compare a bundle with the PyTorch reference again. Exit code 3 where they differ.

    \b
    Example:
      zmask-export verify engines/icnet --model icnet --images frames/ --count 10
    """
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.verify import VerifyOptions, verify_bundle

    options = VerifyOptions(network_from(network), images, count, patch, on_bad_image)
    report = verify_bundle(bundle, options, reporter=ConsoleReporter())
    if as_json and not report.problems:
        click.echo(report.model_dump_json())
    elif not as_json:
        click.echo(
            f"{bundle}: {report.runner} against the reference, policy {report.policy}, "
            f"threshold {report.threshold:.5g}, flags may differ within {report.band:.1e} of it"
        )
        for c in report.comparisons:
            click.echo(
                f"  {c.image:<24} batch {c.batch}: flag {c.flag!s:<5} d {c.score:.5g} (off "
                f"{c.score_error:.1e}), mask IoU {c.mask_iou:.5f}, outputs {c.output_error:.1e}"
            )
        click.echo(f"  tolerances {report.tolerances.model_dump_json()}")
    report.require()

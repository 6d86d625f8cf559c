"""zmask-export calibrate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import PATH, as_json, network_from, network_options, on_bad_image


@click.command("calibrate")
@network_options
@click.option("--images", type=PATH, required=True, help="Folder of clean images, nested or not.")
@click.option("--out", type=PATH, required=True, help="Calibration file to write.")
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most this many images, spread evenly.")
@on_bad_image
@as_json
def command(
    images: Path,
    out: Path,
    batch: int,
    limit: int | None,
    on_bad_image: Any,
    as_json: bool,
    **network: Any,
) -> None:
    """Measure a network's activations on clean images.

    Images of another size are stretched to the network's input. An interrupted run goes on where it
    stopped, to the same file.

    \b
    Examples:
      zmask-export calibrate --model icnet --images clean/ --out icnet.safetensors
      zmask-export calibrate --model icnet --weights mine.pth --images clean/ --out mine.safetensors
    """
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.data.images import ImageFolder
    from zmask_export.pipeline.calibrate import calibrate
    from zmask_export.pipeline.network import open_network

    opened = open_network(network_from(network))
    folder = ImageFolder(images, opened.input_size, on_bad=on_bad_image, limit=limit)
    header = calibrate(opened, folder, out, batch=batch, reporter=ConsoleReporter()).header
    if as_json:
        record = {"out": str(out), "images": header.images, "taps": list(header.defense.taps)}
        click.echo(json.dumps(record))
        return
    click.echo(f"{out}: {len(header.defense.taps)} taps over {header.images} images")
    click.echo(f"Next: zmask-export fit --model {header.model} --calibration {out} --patch PNG ...")

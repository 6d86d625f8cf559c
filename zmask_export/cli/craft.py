"""zmask-export craft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import PATH, as_json, network_from, network_options


@click.command("craft")
@network_options
@click.option("--data", type=PATH, required=True, help="CamVid or Cityscapes folder.")
@click.option("--split", default="train", show_default=True)
@click.option("--out", type=PATH, required=True, help="PNG to write.")
@click.option(
    "--share", default=0.29, show_default=True, help="Patch side over image side (L 0.29)."
)
@click.option("--images", "limit", default=100, show_default=True, help="Images to craft on.")
@click.option("--epochs", type=click.IntRange(1), default=60, show_default=True)
@click.option("--smoothness", default=0.1, show_default=True, help="Weight of the smoothness.")
@click.option(
    "--balanced", is_flag=True, help="Weight every class the same, as mIoU does, not every pixel."
)
@click.option(
    "--scale", nargs=2, type=float, default=(0.8, 1.2), show_default=True, help="Sizes in EOT."
)
@click.option("--seed", default=0, show_default=True)
@as_json
def command(
    data: Path,
    split: str,
    out: Path,
    share: float,
    limit: int,
    epochs: int,
    smoothness: float,
    balanced: bool,
    scale: tuple[float, float],
    seed: int,
    as_json: bool,
    **network: Any,
) -> None:
    """Craft a universal adversarial patch.

    Untargeted, against the bare network, with random place, scale, brightness, contrast and noise.
    An interrupted run goes on where it stopped.

    \b
    Example:
      zmask-export craft --model icnet --data CAMVID --out patch.png
    """
    from zmask_export.attack.craft import CraftSettings
    from zmask_export.attack.transforms import Appearance
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.errors import UsageError
    from zmask_export.pipeline.craft import craft, patch_size
    from zmask_export.pipeline.network import open_network

    if not 0 < share <= 1:
        raise UsageError(f"A share of {share} is no patch.", fix="Give --share in (0, 1].")
    if not 0 < scale[0] <= scale[1]:
        raise UsageError(
            f"Sizes from {scale[0]} to {scale[1]} are no range.", fix="Give --scale 0.8 1.2."
        )
    opened = open_network(network_from(network))
    settings = CraftSettings(
        size=patch_size(opened, share),
        epochs=epochs,
        smoothness=smoothness,
        balanced=balanced,
        appearance=Appearance(scale=scale),
        seed=seed,
    )
    info = craft(opened, data, out, settings, split=split, limit=limit, reporter=ConsoleReporter())
    if as_json:
        click.echo(info.model_dump_json())
        return
    h, w = info.size
    click.echo(f"{out}: {w} x {h} pixels, attack loss {info.loss:.3f} over {info.images} images")

"""zmask-export calibrate."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zmask_export.cli.options import (
    PATH,
    as_json,
    network_from,
    network_options,
    on_bad_image,
    on_ray,
)
from zmask_export.errors import UsageError

if TYPE_CHECKING:
    from zmask_export.pipeline.network import OpenNetwork
    from zmask_export.pipeline.select import Selection

SELECT_LIMIT = 40
"""Images that taps are chosen on, where --limit says nothing."""


@click.command("calibrate")
@network_options
@click.option("--images", type=PATH, required=True, help="Folder of clean images, nested or not.")
@click.option("--out", type=PATH, required=True, help="Calibration file (or preset) to write.")
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most this many images, spread evenly.")
@click.option("--select-taps", is_flag=True, help="Propose taps for S and D; write a preset.")
@click.option("--patch", "patches", type=PATH, multiple=True, help="To select with; repeatable.")
@click.option("--candidates", help="Layers to select from, separated by commas. Default: stages.")
@click.option(
    "--budget",
    type=float,
    help="Most multiply-adds of the selection, as a multiple of the present sets'. Default: 1.",
)
@on_bad_image
@on_ray
@as_json
def command(
    images: Path,
    out: Path,
    batch: int,
    limit: int | None,
    select_taps: bool,
    patches: tuple[Path, ...],
    candidates: str | None,
    budget: float | None,
    on_bad_image: Any,
    ray: str | None,
    as_json: bool,
    **network: Any,
) -> None:
    """Measure a network's activations on clean images, or choose its taps.

    Images of another size are stretched to the network's input. An interrupted run goes on where it
    stopped, to the same file.

    With --select-taps, layers are ranked by how well they localise a patch and tell patched images
    from clean ones, and S and D are proposed within a budget. 40 images are used, and for the preset's
    own weights its own patch.

    \b
    Examples:
      zmask-export calibrate --model icnet --images clean/ --out icnet.safetensors
      zmask-export calibrate --model icnet --weights mine.pth --images clean/ --out mine.safetensors
      zmask-export calibrate --model icnet --images clean/ --out icnet.safetensors --ray
      zmask-export calibrate --model icnet --images clean/ --select-taps --out taps.yaml
      zmask-export calibrate --module nets.mine:make --input-size 360x480 --shallow layer1 \\
        --deep layer4 --images clean/ --out mine.safetensors
    """
    from zmask_export.data.images import ImageFolder
    from zmask_export.pipeline.network import open_network

    if not select_taps and (patches or candidates or budget is not None):
        raise UsageError(
            "--patch, --candidates and --budget belong to --select-taps.",
            fix="Add --select-taps, or leave them out.",
        )
    if select_taps and ray is not None:
        raise UsageError("--ray does not go with --select-taps.", fix="Leave out --ray.")
    chosen = network_from(network)
    opened = open_network(chosen)
    if select_taps and limit is None:
        limit = SELECT_LIMIT
    folder = ImageFolder(images, opened.input_size, on_bad=on_bad_image, limit=limit)
    if select_taps:
        names = tuple(name.strip() for name in candidates.split(",")) if candidates else ()
        many = 1.0 if budget is None else budget
        _select(opened, chosen.option, folder, out, patches, names, many, as_json)
    else:
        _calibrate(opened, chosen.option, folder, out, batch, ray, as_json)


def _calibrate(
    opened: OpenNetwork,
    option: str,
    images: Any,
    out: Path,
    batch: int,
    ray: str | None,
    as_json: bool,
) -> None:
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.cluster.pool import connect
    from zmask_export.pipeline.calibrate import calibrate

    with contextlib.nullcontext() if ray is None else connect(ray) as cluster:
        calibration = calibrate(
            opened, images, out, batch=batch, cluster=cluster, reporter=ConsoleReporter()
        )
    header = calibration.header
    if as_json:
        record = {"out": str(out), "images": header.images, "taps": list(header.defense.taps)}
        click.echo(json.dumps(record))
        return
    click.echo(f"{out}: {len(header.defense.taps)} taps over {header.images} images")
    click.echo(
        f"Next: zmask-export fit {option} --calibration {out} --images FOLDER "
        "--patch PNG, and the same options for the network"
    )


def _select(
    opened: OpenNetwork,
    option: str,
    images: Any,
    out: Path,
    patches: tuple[Path, ...],
    candidates: tuple[str, ...],
    budget: float,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.fit import load_patches
    from zmask_export.pipeline.select import SelectOptions, save_preset, select_taps

    shipped = opened.shipped.patch
    given = patches or (() if shipped is None else (shipped,))
    selection = select_taps(
        opened,
        images,
        load_patches(given),
        SelectOptions(candidates=candidates, budget=budget),
        out=out,
        reporter=ConsoleReporter(),
    )
    save_preset(opened, selection, out)
    if as_json:
        click.echo(json.dumps({"out": str(out), **asdict(selection)}))
        return
    _show(selection)
    own = " --weights FILE" if opened.reader is None else ""
    click.echo(
        f"{out}: S = {', '.join(selection.proposed.shallow)}; "
        f"D = {', '.join(selection.proposed.deep)}"
    )
    click.echo(f"Next: zmask-export build {option} --preset {out}{own} --images FOLDER --patch PNG")


def _show(selection: Selection) -> None:
    from rich.table import Table

    from zmask_export.cli.console import table_console

    columns = ("map", "S: IoU", "AUC", "M madd", "D: IoU", "AUC", "M madd", "in")
    layers = Table(title=f"Layers alone, on {selection.images} images")
    layers.add_column("layer", overflow="fold")
    for name in columns:
        layers.add_column(name, justify="right", no_wrap=True)
    for layer in selection.layers:
        cells = []
        for quality, cost in (
            (layer.quality.shallow, layer.shallow_cost),
            (layer.quality.deep, layer.deep_cost),
        ):
            cells += [f"{quality.iou:.3f}", f"{quality.auc:.3f}", f"{cost / 1e6:.0f}"]
        chosen = "S" * (layer.tap in selection.proposed.shallow)
        chosen += "D" * (layer.tap in selection.proposed.deep)
        layers.add_row(layer.tap, "x".join(map(str, layer.shape)), *cells, chosen)
    sets = Table("", "S", "D", title="Sets, on the images that had no part in the choice")
    for name in ("IoU", "AUC", "M madd"):
        sets.add_column(name, justify="right", no_wrap=True)
    for label, found in (("proposed", selection.proposed), ("present", selection.present)):
        quality = found.quality
        numbers = (f"{quality.iou:.3f}", f"{quality.auc:.3f}", f"{found.multiply_adds / 1e6:.0f}")
        sets.add_row(label, "\n".join(found.shallow), "\n".join(found.deep), *numbers)
    console = table_console()
    console.print(layers)
    console.print(sets)

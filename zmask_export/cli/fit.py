"""zmask-export fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import PATH, as_json, network_from, network_options, on_bad_image


@click.command("fit")
@network_options
@click.option("--calibration", type=PATH, required=True, help="File that calibrate wrote.")
@click.option("--images", type=PATH, required=True, help="Clean images.")
@click.option("--patch", "patches", type=PATH, multiple=True, required=True, help="Repeatable.")
@click.option("--out", type=PATH, help="File to write. Default: the calibration file itself.")
@click.option("--limit", default=500, show_default=True, help="At most this many images.")
@click.option("--epochs", type=click.IntRange(1), default=15, show_default=True)
@click.option("--target-fpr", type=float, help="Clean images that may be flagged, such as 0.01.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@on_bad_image
@as_json
def command(
    calibration: Path,
    images: Path,
    patches: tuple[Path, ...],
    out: Path | None,
    limit: int,
    epochs: int,
    target_fpr: float | None,
    seed: int,
    on_bad_image: Any,
    as_json: bool,
    **network: Any,
) -> None:
    """Fit the fusion block and choose the threshold.

    Every image is used clean and with each patch pasted at a random place. Kernels, grid and registration
    may differ from those that the statistics were measured with.

    \b
    Examples:
      zmask-export fit --model icnet --calibration icnet.safetensors --images clean/ --patch p.png
      zmask-export fit ... --registration paper --out paper.safetensors
    """
    from zmask_export.artifacts.files import require_writable
    from zmask_export.calibrate.fit import FitSettings
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.data.images import ImageFolder
    from zmask_export.pipeline.fit import REFITTED, FitOptions, fit, load_patches
    from zmask_export.pipeline.network import load_calibration, open_network

    target = out or calibration
    require_writable(target)
    opened = open_network(network_from(network))
    statistics = load_calibration(calibration, opened, may_change=REFITTED)
    attack = list(zip((p.name for p in patches), load_patches(patches), strict=True))
    folder = ImageFolder(images, opened.input_size, on_bad=on_bad_image, limit=limit)
    options = FitOptions(FitSettings(epochs=epochs, seed=seed), target_fpr)
    fitted = fit(opened, statistics, folder, attack, options, reporter=ConsoleReporter())
    fitted.save(target)
    summary = fitted.header.fit
    if as_json:
        record = {"out": str(target), "threshold": fitted.header.threshold}
        click.echo(json.dumps(record | (summary.model_dump() if summary else {})))
        return
    click.echo(f"{target}: threshold {fitted.header.threshold:.5g}")
    if summary is not None:
        click.echo(
            f"  fit set    AUC {summary.roc.auc:.4f}, TPR {summary.roc.true_positive_rate:.3f}, "
            f"FPR {summary.roc.false_positive_rate:.3f}, mask IoU {summary.mask_iou:.3f}"
        )
        low, high = summary.gate_range
        click.echo(
            f"  deep gate  {low:.3f} to {high:.3f}; clean pixels covered {summary.clean_masked:.4f}"
        )

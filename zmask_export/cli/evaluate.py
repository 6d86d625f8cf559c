"""zmask-export evaluate."""

from __future__ import annotations

from pathlib import Path

import click

from zmask_export.cli.options import PATH, as_json


@click.command("evaluate")
@click.argument("bundle", type=PATH)
@click.option("--data", type=PATH, required=True, help="CamVid or Cityscapes folder.")
@click.option("--split", default="val", show_default=True)
@click.option("--patch", type=PATH, required=True, help="Patch to attack with.")
@click.option("--limit", type=click.IntRange(1), help="At most this many images, spread evenly.")
@click.option("--seed", default=0, show_default=True, help="Of the patch's places.")
@as_json
def command(
    bundle: Path, data: Path, split: str, patch: Path, limit: int | None, seed: int, as_json: bool
) -> None:
    """Measure how well a bundle defends, on labelled images.

    The deployed graph itself is measured, through its runner.

    \b
    Example:
      zmask-export evaluate engines/icnet --data CAMVID --patch calib/icnet/patch.png
    """
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.evaluate import evaluate_bundle

    scores = evaluate_bundle(
        bundle, data, patch, split=split, limit=limit, seed=seed, reporter=ConsoleReporter()
    )
    if as_json:
        click.echo(scores.model_dump_json())
        return
    rows = (
        ("mIoU clean, bare", f"{scores.clean:.4f}"),
        ("mIoU clean, defended", f"{scores.clean_defended:.4f}"),
        ("mIoU attacked, bare", f"{scores.attacked:.4f}"),
        ("mIoU attacked, defended", f"{scores.defended:.4f}"),
        ("mIoU attacked, oracle", f"{scores.oracle:.4f}"),
        ("recovered of the oracle", f"{scores.recovered:.3f}"),
        ("detection AUC", f"{scores.auc:.4f}"),
        ("TPR at the threshold", f"{scores.true_positive_rate:.3f}"),
        ("FPR at the threshold", f"{scores.false_positive_rate:.3f}"),
        ("mask IoU", f"{scores.mask_iou:.3f}"),
        ("clean pixels covered", f"{scores.clean_masked:.4f}"),
    )
    click.echo(f"{bundle} on {scores.images} images")
    for label, value in rows:
        click.echo(f"  {label:<24} {value}")

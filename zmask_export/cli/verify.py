"""zmask-export verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import (
    PATH,
    as_json,
    network_from,
    network_options,
    on_bad_image,
    verify_key,
)
from zmask_export.errors import UsageError


@click.command("verify")
@click.argument("bundle", type=PATH)
@network_options
@click.option("--images", type=PATH, help="Folder of images. Default: drawn street scenes.")
@click.option("--count", type=click.IntRange(1), default=2, show_default=True)
@click.option("--patch", type=PATH, help="Patch to paste. Default: the preset's, or noise.")
@click.option(
    "--data",
    type=PATH,
    help="Labelled data set: compares a bundle of fp16, bf16 or int8 with the same network in float32.",
)
@click.option("--split", default="val", show_default=True, help="With --data: which part of it.")
@click.option(
    "--limit", type=click.IntRange(1), help="With --data: at most this many images, spread evenly."
)
@on_bad_image
@verify_key
@as_json
def command(
    bundle: Path,
    images: Path | None,
    count: int,
    patch: Path | None,
    data: Path | None,
    split: str,
    limit: int | None,
    on_bad_image: Any,
    verify_key: Path | None,
    as_json: bool,
    **network: Any,
) -> None:
    """Compare a bundle with the PyTorch reference again. Exit code 3 where they differ.

    With --data, a bundle of lower precision is compared with its float32 twin in what the defense is for:
    mIoU or mAP on clean and patched images, detection AUC, flags, masks.

    \b
    Examples:
      zmask-export verify engines/icnet --model icnet --images frames/ --count 10
      zmask-export verify engines/icnet-fp16 --model icnet --data CAMVID --patch calib/icnet/patch.png
    """
    chosen = network_from(network)
    if data is None:
        _refuse(("split", "limit"), "without --data", "give --data")
        from zmask_export.pipeline.verify import VerifyOptions

        options = VerifyOptions(chosen, images, count, patch, on_bad_image, verify_key)
        _parity(bundle, options, as_json=as_json)
        return
    _refuse(("images", "count", "on_bad_image"), "with --data", "leave out --data")
    from zmask_export.pipeline.twins import TwinOptions

    twins = TwinOptions(chosen, data, patch, split, limit, verify_key=verify_key)
    _twins(bundle, twins, as_json=as_json)


def _refuse(options: tuple[str, ...], where: str, otherwise: str) -> None:
    ctx, given = click.get_current_context(), click.core.ParameterSource.COMMANDLINE
    for name in options:
        if ctx.get_parameter_source(name) is given:
            shown = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{shown} means nothing {where}.", fix=f"Leave out {shown}, or {otherwise}."
            )


def _parity(bundle: Path, options: Any, *, as_json: bool) -> None:
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.verify import verify_bundle

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
        click.echo(f"  tolerances {report.tolerances.model_dump_json(exclude_none=True)}")
    report.require()


def _twins(bundle: Path, options: Any, *, as_json: bool) -> None:
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.twins import verify_twins

    report = verify_twins(bundle, options, reporter=ConsoleReporter())
    if as_json and not report.problems:
        click.echo(report.model_dump_json())
    elif not as_json:
        limits = report.tolerances
        click.echo(f"{bundle}: {report.precision} against float32, {report.images} images")
        rows = (
            (f"{report.metric} clean", report.clean, limits.quality),
            (f"{report.metric} patched, defended", report.patched, limits.quality),
            ("detection AUC", report.auc, limits.auc),
        )
        for name, (lower, full), bar in rows:
            click.echo(f"  {name:<26}{lower:.4f}, float32 {full:.4f}, within {bar or 0:g}")
        outside = sum(flip.margin > limits.score_rtol for flip in report.flips)
        click.echo(
            f"  {'flags that differ':<26}{len(report.flips)}, {outside} of them outside "
            f"{limits.score_rtol:g} of the threshold"
        )
        worst, median = report.score_error
        click.echo(
            f"  {'scores off by':<26}{worst:.1e} at most, median {median:.1e}, within "
            f"{limits.score_rtol:g}"
        )
        if report.mask_iou is not None:
            least, mean = report.mask_iou
            click.echo(
                f"  {'mask IoU':<26}{least:.4f} at least, mean {mean:.4f}, bar {limits.mask_iou:g}"
            )
        most, mean = report.pixels
        click.echo(f"  {'pixels of another class':<26}{most:.2%} at most, mean {mean:.2%}")
    report.require()

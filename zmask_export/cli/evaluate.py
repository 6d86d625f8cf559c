"""zmask-export evaluate."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from zmask_export.cli.options import PATH, as_json, on_ray, verify_key
from zmask_export.errors import UsageError


@click.command("evaluate")
@click.argument("bundle", type=PATH, required=False)
@click.option("--data", type=PATH, help="CamVid or Cityscapes folder; for a detector also COCO.")
@click.option("--split", default="val", show_default=True)
@click.option("--patch", type=PATH, help="Patch to attack with.")
@click.option("--limit", type=click.IntRange(1), help="At most this many images, spread evenly.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the patch's places."
)
@click.option("--html", type=PATH, help="Write the table as a page, too.")
@click.option(
    "--study",
    type=PATH,
    help="YAML file that names networks, patches and rivals: fills the paper's table and figures.",
)
@click.option("--out", type=PATH, help="With --study: folder of the results; resumable.")
@click.option("--reference", is_flag=True, help="With --study: the PyTorch form, not the bundle.")
@click.option("--quick", is_flag=True, help="With --study: few images, to see that it runs.")
@click.option("--build", is_flag=True, help="With --study: build the bundles that are not there.")
@on_ray
@verify_key
@as_json
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path | None,
    data: Path | None,
    split: str,
    patch: Path | None,
    limit: int | None,
    seed: int,
    html: Path | None,
    study: Path | None,
    out: Path | None,
    reference: bool,
    quick: bool,
    build: bool,
    ray: str | None,
    verify_key: Path | None,
    as_json: bool,
) -> None:
    """Measure how well a bundle defends, on labelled images: mIoU, or mAP for a detector.

    The deployed graph itself is measured, through its runner.

    \b
    Examples:
      zmask-export evaluate engines/icnet --data CAMVID --patch calib/icnet/patch.png
      zmask-export evaluate engines/retinanet --data COCO --split val2017 --patch patch.png
      zmask-export evaluate engines/icnet --data CAMVID --patch patch.png --ray
      zmask-export evaluate --study study.yaml --data CAMVID --out results
    """
    if study is not None:
        _refuse(ctx, "--study", ("bundle", "split", "patch", "seed", "html", "ray", "verify_key"))
        if reference and build:
            raise UsageError("--reference measures no bundle.", fix="Leave out --build.")
        how = {"reference": reference, "quick": quick, "build": build}
        _study(study, out, data, limit, how, as_json=as_json)
        return
    _refuse(ctx, "a bundle", ("out", "reference", "quick", "build"))
    if bundle is None or data is None or patch is None:
        given = {"BUNDLE": bundle, "--data": data, "--patch": patch}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise UsageError(
            f"Missing: {missing}.",
            fix="Give BUNDLE, --data and --patch, or --study and --out. "
            "See zmask-export evaluate --help.",
        )
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.cluster.pool import connect
    from zmask_export.pipeline.evaluate import evaluate_bundle

    with contextlib.nullcontext() if ray is None else connect(ray) as cluster:
        scores = evaluate_bundle(
            bundle, data, patch, split=split, limit=limit, seed=seed, html=html,
            cluster=cluster, verify_key=verify_key, reporter=ConsoleReporter(),
        )  # fmt: skip
    if as_json:
        click.echo(scores.model_dump_json())
        return
    click.echo(f"{bundle} on {scores.images} images")
    width = max(len(label) for label, _, _ in scores.lines())
    for label, number, interval in scores.lines():
        click.echo(f"  {label:<{width}}  {number:<7} {interval}".rstrip())


def _study(
    path: Path,
    out: Path | None,
    data: Path | None,
    limit: int | None,
    how: dict[str, bool],
    *,
    as_json: bool,
) -> None:
    if out is None:
        raise UsageError("A study needs a folder for its results.", fix="Give --out FOLDER.")
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.study import REPORT_HTML, run_study

    report = run_study(path, out, data=data, limit=limit, reporter=ConsoleReporter(), **how)
    if as_json:
        click.echo(report.model_dump_json())
        return
    click.echo(f"{out / REPORT_HTML}")
    for line in report.summary():
        click.echo(f"  {line}")


def _refuse(ctx: click.Context, form: str, options: tuple[str, ...]) -> None:
    """Refuse options that the other form of the command takes."""
    given = click.core.ParameterSource.COMMANDLINE
    for name in options:
        if ctx.get_parameter_source(name) is given:
            shown = "BUNDLE" if name == "bundle" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{shown} does not go with {form}.", fix=f"Leave out {shown}.")

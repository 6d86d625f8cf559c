"""zmask-export build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import (
    PATH,
    as_json,
    network_from,
    network_options,
    on_bad_image,
    sign_key,
)


@click.command("build")
@network_options
@click.option("--out", type=PATH, help="Folder of the bundle. Default: engines/NAME.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option(
    "--policy",
    type=click.Choice(["detect", "mask", "gated"]),
    default="gated",
    show_default=True,
    help="detect: one pass and a flag. mask: always a second pass on the covered image. "
    "gated: the second pass only where an image is flagged.",
)
@click.option(
    "--target",
    type=click.Choice(["auto", "onnx", "tensorrt", "tensorrt-rtx"]),
    default="auto",
    show_default=True,
    help="Engines to compile; auto takes what can build here.",
)
@click.option("--calibration", type=PATH, help="Fitted calibration file of these weights.")
@click.option("--images", type=PATH, help="Clean images to calibrate and fit on.")
@click.option("--patch", "patches", type=PATH, multiple=True, help="Patch to fit on; repeatable.")
@click.option("--batch", type=click.IntRange(1, 64), help="Fixed batch. Default: dynamic.")
@click.option(
    "--max-batch",
    default=1,
    show_default=True,
    help="Largest batch of the engines. Above 1 two builds differ in a few bytes of order.",
)
@click.option(
    "--compute-capability",
    "capabilities",
    multiple=True,
    help="GPU generation of a tensorrt-rtx engine, such as 8.9; repeatable. Default: the compiler's own "
    "choice, 8.0, 8.6, 8.9 and 12.",
)
@click.option("--raw-taps", is_flag=True, help="Also output the tapped activations.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="What the network computes in; Z-Mask itself stays float32. tf32: float32 whose engine may round "
    "factors to 10 bits. int8: ranges are taken from --images, which may stand beside --calibration.",
)
@sign_key
@click.option(
    "--reproducible",
    is_flag=True,
    help="The same inputs give the same bytes: computes on one thread, and refuses engines of which two "
    "builds differ.",
)
@on_bad_image
@as_json
def command(
    out: Path | None,
    force: bool,
    policy: str,
    target: Any,
    calibration: Path | None,
    images: Path | None,
    patches: tuple[Path, ...],
    batch: int | None,
    max_batch: int,
    capabilities: tuple[str, ...],
    raw_taps: bool,
    precision: Any,
    sign_key: Path | None,
    reproducible: bool,
    on_bad_image: Any,
    as_json: bool,
    **network: Any,
) -> None:
    """Build a protected, verified engine for a network.

    \b
    Examples:
      zmask-export build --model icnet
      zmask-export build --model icnet --policy detect --compute-capability 8.9
      zmask-export build --model icnet --weights mine.pth --images clean/ --patch patch.png
      zmask-export build --model icnet --precision fp16 --out engines/icnet-fp16
      zmask-export build --model icnet --reproducible --sign-key release
      zmask-export build --model icnet --preset paper --random-weights
      zmask-export build --module nets.mine:make --input-size 360x480 --shallow layer1 --deep layer4 \\
        --images clean/ --patch patch.png
      zmask-export build --onnx net.onnx --preprocess unit --shallow relu1 --deep relu9 \\
        --images clean/ --patch patch.png
    """
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.build import BuildOptions, build
    from zmask_export.spec import Policy

    chosen = network_from(network)
    options = BuildOptions(
        network=chosen,
        out=out or Path("engines") / chosen.name,
        force=force,
        policy=Policy(policy),
        target=target,
        calibration=calibration,
        images=images,
        patches=patches,
        batch=batch,
        max_batch=max_batch,
        capabilities=capabilities,
        raw_taps=raw_taps,
        precision=precision,
        on_bad=on_bad_image,
        sign_key=sign_key,
        reproducible=reproducible,
    )
    built = build(options, reporter=ConsoleReporter())
    comparisons = built.parity.comparisons
    if as_json:
        record = {
            "bundle": str(built.out),
            "engines": [engine.model_dump() for engine in built.manifest.engines],
            "worst_mask_iou": min(c.mask_iou for c in comparisons),
            "worst_score_error": max(c.score_error for c in comparisons),
            "worst_output_error": max(c.output_error for c in comparisons),
        }
        click.echo(json.dumps(record))
        return
    click.echo(
        f"{built.out}: policy {policy}, {precision}, verified on {len(comparisons)} comparisons"
    )
    click.echo(
        f"  parity     mask IoU >= {min(c.mask_iou for c in comparisons):.5f}, score within "
        f"{max(c.score_error for c in comparisons):.1e}, outputs within "
        f"{max(c.output_error for c in comparisons):.1e}"
    )
    for engine in built.manifest.engines:
        memory = (engine.activation_bytes or 0) / 2**20
        size = built.manifest.files[engine.file].bytes / 2**20
        click.echo(f"  {engine.flavour:<10} {size:.1f} MiB, activations {memory:.1f} MiB")
    click.echo(f"Next: zmask-export run {built.out} IMAGE... --out results")

"""zmask-export triton."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zmask_export.cli.options import PATH, as_json, verify_key

if TYPE_CHECKING:
    from zmask_export.pipeline.triton import Served


@click.command("triton")
@click.argument("bundle", type=PATH)
@click.argument("repository", type=PATH, metavar="REPO")
@click.option("--name", help="Of the model. Default: the bundle's.")
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "tensorrt"]),
    default="onnxruntime",
    show_default=True,
    help="Triton's backend. tensorrt serves the bundle's plan, which a build on a GPU makes.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    help="Let Triton join requests to batches of up to this many images.",
)
@click.option("--force", is_flag=True, help="Replace a model that this command wrote.")
@verify_key
@as_json
def command(
    bundle: Path,
    repository: Path,
    name: str | None,
    backend: Any,
    max_batch: int | None,
    force: bool,
    verify_key: Path | None,
    as_json: bool,
) -> None:
    """Write a bundle into an NVIDIA Triton model repository.

    A request may leave the threshold out and then gets the calibrated one. With --max-batch Triton
    joins requests, and takes no optional inputs: each image brings its threshold, as (N, 1), and a
    negative one stands for the calibrated one. A TensorRT plan always needs its threshold, as (1,).

    \b
    Examples:
      zmask-export triton engines/icnet models
      zmask-export triton engines/icnet models --name icnet-batched --max-batch 8
      zmask-export triton engines/icnet models --backend tensorrt --force
    """
    from zmask_export.pipeline.triton import TritonOptions, write_model

    options = TritonOptions(name, backend, max_batch or 0, force, verify_key)
    served = write_model(bundle, repository, options)
    click.echo(served.model_dump_json() if as_json else _text(served, repository))


def _text(served: Served, repository: Path) -> str:
    batches = (
        f"joins up to {served.max_batch_size} images" if served.max_batch_size else "no joining"
    )
    lines = [
        f"{served.folder}: {served.platform}, {batches}, threshold {served.threshold_input} "
        f"(calibrated: {served.threshold:.6g})"
    ]
    if served.tensorrt is not None:
        lines.append(f"The plan needs a Triton with TensorRT {served.tensorrt}.")
    lines.append(f"Next: tritonserver --model-repository {repository.absolute()}")
    return "\n".join(lines)

"""Make the shipped calibration of a demo network, as ``calib/<model>/`` holds it.

    python tools/make_calibration.py --data CAMVID --model icnet

On the training split: crafts ``patch.png``, which the fit does not see, and
``fit.png``, which the fusion block is fitted on; measures the statistics; fits. ``weak.png`` is ``fit.png``
with less over-activation (beta = 0.8): a fit on both measured worse (mask IoU 0.85 against 0.87 for ICNet),
so only MaskNet is trained on it; the detector has none. Every step is a verb of the command line; this only
fixes their settings. Patches that are there already are kept.
"""

from __future__ import annotations

from pathlib import Path

import click

from zmask_export import presets
from zmask_export.cli.main import run
from zmask_export.models import registry

CRAFT = ("--images", "100", "--smoothness", "0.02", "--scale", "1", "1")
"""How every demo patch is crafted."""
OF_TASK = {"segmentation": ("--balanced",), "detection": ("--goal", "untargeted")}
EPOCHS = {"segmentation": ("30", "25"), "detection": ("15", "12")}
"""Of ``patch.png`` and ``fit.png``."""


def verb(*arguments: str | Path) -> None:
    """Run a verb of zmask-export; leave with its exit code where it fails."""
    click.echo(f"zmask-export {' '.join(map(str, arguments))}", err=True)
    code = run([str(argument) for argument in arguments])
    if code:
        raise SystemExit(code)


def craft(model: str, data: Path, out: Path, *settings: str | Path) -> None:
    """Craft a demo patch, unless it is there; of two values of a setting the later one counts."""
    if not out.exists():
        own = OF_TASK[registry.get(model).task]
        verb("craft", "--model", model, "--data", data, "--out", out, *CRAFT, *own, *settings)


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(path_type=Path), required=True, help="CamVid folder.")
@click.option("--model", default="icnet", help="Demo network.")
def main(data: Path, model: str) -> None:
    """Craft, calibrate and fit; stop at the first failure."""
    folder = presets.folder() / model
    images = data / "train" / "images"
    plain, weak = folder / "fit.png", folder / "weak.png"
    calibration = folder / "calibration.safetensors"
    network = ("--model", model)
    task = registry.get(model).task
    for out, epochs, seed in zip((folder / "patch.png", plain), EPOCHS[task], "01", strict=True):
        craft(model, data, out, "--epochs", epochs, "--seed", seed)
    verb("calibrate", *network, "--images", images, "--out", calibration)
    if task == "segmentation":
        goal = ("--beta", "0.8", "--calibration", calibration)
        near = ("--init", plain, "--epochs", "8", "--lr", "0.05")
        craft(model, data, weak, *goal, *near, "--seed", "1")
    verb(
        *("fit", *network, "--calibration", calibration, "--images", images, "--limit", "100"),
        *("--patch", plain),
    )


if __name__ == "__main__":
    main()

"""Make the shipped patch and calibration of a demo network, as ``calib/<model>/`` holds them.

    python tools/make_calibration.py --data CAMVID

Crafts an L patch on the training split, measures the statistics, fits the fusion block, and writes
``patch.png`` and ``calibration.safetensors`` beside the weights. Every step is a verb of the command
line; this only fixes their settings.
"""

from __future__ import annotations

from pathlib import Path

import click

from zmask_export import presets
from zmask_export.cli.main import run

CRAFT = (
    "--images",
    "100",
    "--epochs",
    "30",
    "--smoothness",
    "0.02",
    "--balanced",
    "--scale",
    "1",
    "1",
)
FIT = ("--limit", "100")


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(path_type=Path), required=True, help="CamVid folder.")
@click.option("--model", default="icnet", help="Demo network.")
def main(data: Path, model: str) -> None:
    """Craft, calibrate and fit, in this order; stop at the first failure."""
    folder = presets.folder() / model
    images = str(data / "train" / "images")
    patch, calibration = str(folder / "patch.png"), str(folder / "calibration.safetensors")
    network = ("--model", model)
    verbs = (
        ("craft", *network, "--data", str(data), "--out", patch, *CRAFT),
        ("calibrate", *network, "--images", images, "--out", calibration),
        ("fit", *network, "--calibration", calibration, "--images", images, "--patch", patch, *FIT),
    )
    for arguments in verbs:
        code = run(list(arguments))
        if code:
            raise SystemExit(code)


if __name__ == "__main__":
    main()

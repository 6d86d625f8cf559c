"""Make what the CamVid study evaluates one network with, as ``calib/camvid/<model>/`` holds it.

    python tools/make_study.py --data CAMVID --model icnet

All of it on the training split. Patches S and M, and a random one of size L; MaskNet, trained against
``fit.png`` and ``weak.png``; the over-activation series over beta (Figure 6) and the defense-aware
series over alpha (Figure 9), each patch starting from its neighbour, the first from the L patch
``calib/<model>/patch.png``. A detector gets the patches alone. What is there already is kept, so an
interrupted run goes on; after a new fit, remove ``mask-*.png`` and ``flag-*.png`` first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
from make_calibration import craft, verb

from zmask_export import presets
from zmask_export.models import registry

VALUES = tuple(f"0.{tenth}" for tenth in range(9, -1, -1))
"""alpha and beta below 1, in the order in which they are crafted."""
BETA = ("--epochs", "5", "--lr", "0.05")
AWARE = ("--images", "50", "--epochs", "2", "--lr", "0.05", "--aware-images", "1")
MASKNET = ("--images", "100", "--epochs", "15")


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(path_type=Path), required=True, help="CamVid folder.")
@click.option("--model", default="icnet", help="Demo network.")
def main(data: Path, model: str) -> None:
    """Craft and train what is not there; stop at the first failure."""
    home = presets.folder() / model
    folder = presets.folder() / "camvid" / model
    folder.mkdir(parents=True, exist_ok=True)
    large, calibration = home / "patch.png", home / "calibration.safetensors"
    detects = registry.get(model).task == "detection"
    epochs = "8" if detects else "25"
    for name, share in (("M", "0.20"), ("S", "0.15")):
        craft(model, data, folder / f"{name}.png", "--share", share, "--epochs", epochs)
    if not (folder / "Rand.png").exists():
        verb("craft", "--model", model, "--random", "--out", folder / "Rand.png")
    if detects:
        return

    masknet = folder / "masknet.safetensors"
    if not masknet.exists():
        given = [f"--patch={home / name}" for name in ("fit.png", "weak.png")]
        tool = Path(__file__).with_name("train_masknet.py")
        settings = ("--model", model, "--data", data, "--out", masknet, *given, *MASKNET)
        subprocess.run([sys.executable, str(tool), *map(str, settings)], check=True)

    for series in ("beta", "mask", "flag"):
        before = folder / f"{series}-1.0.png"
        shutil.copyfile(large, before)
        # beta = 0 is no attack, and Figure 6 begins at 0.1.
        for value in VALUES[:-1] if series == "beta" else VALUES:
            patch = folder / f"{series}-{value}.png"
            if series == "beta":
                goal = ("--beta", value, *BETA)
            else:
                goal = ("--aware", series, "--alpha", value, *AWARE)
            craft(model, data, patch, *goal, "--calibration", calibration, "--init", before)
            before = patch


if __name__ == "__main__":
    main()

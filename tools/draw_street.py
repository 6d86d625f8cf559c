"""Draw a street twice: as it is, and with a patch in it.

python tools/draw_street.py --out street
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image

from zmask_export import presets
from zmask_export.attack import patch as patches
from zmask_export.data.scene import draw_scene
from zmask_export.pipeline.probe import with_patch


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), default=Path("street"), help="Folder.")
@click.option("--model", default="icnet", help="Whose shipped patch and input size.")
@click.option("--scene", default=0, help="Seed of the drawn street.")
@click.option("--place", default=0, help="Seed of the patch's place.")
def main(out: Path, model: str, scene: int, place: int) -> None:
    """Write clean.png and patched.png."""
    shipped = presets.find(model)
    if shipped.patch is None:
        raise SystemExit(f"{model} ships no patch")
    clean = draw_scene(shipped.preset.input_size, scene)
    patched = with_patch(clean, patches.load(shipped.patch), np.random.default_rng(place))
    out.mkdir(parents=True, exist_ok=True)
    for name, image in (("clean", clean), ("patched", patched)):
        Image.fromarray(image).save(out / f"{name}.png")
        click.echo(f"{out / name}.png")


if __name__ == "__main__":
    main()

"""Draw the README's picture: a drawn street, attacked and defended.

    python tools/draw_figure.py --bundle engines/icnet --out docs/street.png

Top: the patched scene, what the bare network sees, what the protected engine sees. Bottom: the clean
scene and its prediction, and the mask. Everything in it is computed by the bundle.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import zmask_export
from zmask_export import presets
from zmask_export.attack import patch as patches
from zmask_export.data.images import to_float
from zmask_export.data.scene import draw_scene
from zmask_export.pipeline.probe import with_patch
from zmask_export.runtime import pictures
from zmask_export.runtime.protected import NEVER

GAP, BAR = 8, 22


def tile(picture: np.ndarray, title: str) -> Image.Image:
    """A picture with its title above it."""
    h, w = picture.shape[:2]
    image = Image.new("RGB", (w, h + BAR), "white")
    image.paste(Image.fromarray(picture).convert("RGB"), (0, BAR))
    ImageDraw.Draw(image).text((2, 4), title, "black", ImageFont.load_default(14))
    return image


@click.command(context_settings={"show_default": True})
@click.option("--bundle", type=click.Path(path_type=Path), default=Path("engines/icnet"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/street.png"))
@click.option("--scene", default=0, help="Seed of the drawn street.")
@click.option("--place", default=0, help="Seed of the patch's place.")
def main(bundle: Path, out: Path, scene: int, place: int) -> None:
    """Compute and write the picture."""
    engine = zmask_export.load(bundle)
    classes = engine.manifest.classes
    clean = draw_scene(engine.manifest.input_size, scene)
    shipped = presets.find(engine.manifest.model)
    if shipped.patch is None:
        raise SystemExit("the network ships no patch")
    patched = with_patch(clean, patches.load(shipped.patch), np.random.default_rng(place))
    bare = engine.run(to_float([patched]), threshold=NEVER)[0]
    defended = engine.run(to_float([patched]))[0]
    quiet = engine.run(to_float([clean]))[0]
    rows = (
        (
            tile(patched, "a street with an adversarial patch"),
            tile(pictures.colour_prediction(bare, classes), "bare network"),
            tile(pictures.colour_prediction(defended, classes), "protected engine"),
        ),
        (
            tile(
                pictures.overlay(patched, defended, classes),
                f"covered (d = {defended.score:.2f}: flagged)",
            ),
            tile(pictures.mask_picture(defended), "mask"),
            tile(
                pictures.colour_prediction(quiet, classes),
                f"clean street (d = {quiet.score:.3f}: not flagged)",
            ),
        ),
    )
    w, h = rows[0][0].size
    sheet = Image.new("RGB", (3 * w + 2 * GAP, 2 * h + GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * (w + GAP), y * (h + GAP)))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(200, dither=Image.Dither.NONE).save(out, optimize=True)
    click.echo(f"{out}: {sheet.width} x {sheet.height}")


if __name__ == "__main__":
    main()

"""zmask-export craft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from zmask_export.cli.options import PATH, SizeType, as_json, network_from, network_options

if TYPE_CHECKING:
    from zmask_export.attack.detection_effect import DetectionEffect
    from zmask_export.attack.effect import Effect
    from zmask_export.attack.patch import PatchInfo
    from zmask_export.attack.settings import Goal

_OPTIMISING = (
    "epochs", "batch", "smoothness", "printability", "palette", "combine", "balanced", "beta", "aware",
    "alpha", "aware_images", "scale", "lr", "start", "goal", "target_class", "box_weight",
)  # fmt: skip
_PIXELS = ("combine", "balanced")
_BOXES = ("goal", "target_class", "box_weight")
_MEASURING = ("split", "limit", "calibration")


@click.command("craft")
@network_options
@click.option(
    "--data",
    type=PATH,
    help="CamVid or Cityscapes folder, for a detector also COCO; --random needs none.",
)
@click.option("--split", default="train", show_default=True)
@click.option("--images", "limit", default=100, show_default=True, help="Images to craft on.")
@click.option("--out", type=PATH, required=True, help="PNG to write.")
@click.option("--share", type=float, help="Patch side over image side.  [default: 0.29 (L)]")
@click.option("--size", type=SizeType(), help="Patch size instead, in pixels.")
@click.option("--random", is_flag=True, help="Uniform noise; nothing is optimised.")
@click.option("--epochs", type=click.IntRange(1), default=60, show_default=True)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Images a step; large networks need about 2 GB for each.",
)
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=0.1, show_default=True)
@click.option("--init", "start", type=PATH, help="Patch to start from.  [default: noise]")
@click.option("--smoothness", default=0.1, show_default=True, help="Weight w_S.")
@click.option("--printability", default=0.0, show_default=True, help="Weight w_N.")
@click.option("--palette", type=PATH, help="Printable colours: a text file or an image.")
@click.option(
    "--combine",
    type=click.Choice(["sum", "paper"]),
    default="sum",
    show_default=True,
    help="Normalise the gradients of right and wrong pixels together, or each by itself (B.2).",
)
@click.option(
    "--balanced", is_flag=True, help="Weight every class the same, as mIoU does, not every pixel."
)
@click.option(
    "--goal",
    type=click.Choice(["misclassify", "untargeted", "false-detection"]),
    help="What a detector shall do: give boxes other classes, err in both, or find the patch.  "
    "[default: misclassify]",
)
@click.option(
    "--class", "target_class", help="What --goal false-detection finds: a class's name or number."
)
@click.option(
    "--box-weight",
    default=1.0,
    show_default=True,
    help="Weight of a detector's losses on boxes against those on classes.",
)
@click.option(
    "--beta", default=1.0, show_default=True, help="Attack against 1 - beta of over-activation."
)
@click.option(
    "--aware", type=click.Choice(["mask", "flag"]), help="Attack this of the defense as well."
)
@click.option("--alpha", type=float, help="Attack against 1 - alpha of --aware.")
@click.option(
    "--aware-images",
    type=click.IntRange(1),
    help="Images of a batch that --aware looks at; fewer are faster.  [default: all]",
)
@click.option("--calibration", type=PATH, help="For --beta, --aware: what calibrate, fit wrote.")
@click.option(
    "--scale", nargs=2, type=float, default=(0.8, 1.2), show_default=True, help="Sizes in EOT."
)
@click.option("--seed", default=0, show_default=True)
@as_json
def command(
    data: Path | None,
    split: str,
    limit: int,
    out: Path,
    share: float | None,
    size: tuple[int, int] | None,
    random: bool,
    palette: Path | None,
    start: Path | None,
    alpha: float | None,
    goal: Goal | None,
    target_class: str | None,
    calibration: Path | None,
    scale: tuple[float, float],
    as_json: bool,
    **rest: Any,
) -> None:
    """Craft a universal adversarial patch.

    With random place, scale, brightness, contrast and noise; untargeted for a network that labels
    pixels, with a --goal for a detector. By default the bare network is attacked. --beta trades the
    attack for weak activations in the shallow layers; --aware mask and --aware flag attack a fitted
    defense too (Adv-Mask, Adv-Flag). An interrupted run goes on where it stopped.

    \b
    Examples:
      zmask-export craft --model icnet --data CAMVID --out patch.png
      zmask-export craft --model camvid-retinanet --data CAMVID --out patch.png
      zmask-export craft --model camvid-retinanet --data CAMVID --goal false-detection --class car \\
        --out car.png
      zmask-export craft --model icnet --data CAMVID --calibration mine.safetensors --aware flag \\
        --alpha 0.5 --out flag.png
    """
    from zmask_export.attack import palette as palettes
    from zmask_export.attack import patch as patches
    from zmask_export.attack.settings import CraftSettings
    from zmask_export.attack.transforms import Appearance
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.errors import UsageError
    from zmask_export.pipeline.craft import craft, randomise
    from zmask_export.pipeline.craft_data import LARGE, CraftData, class_index, patch_size
    from zmask_export.pipeline.network import load_calibration, open_network

    if random:
        _refuse(_OPTIMISING if data else _OPTIMISING + _MEASURING, "A random patch")
    elif data is None:
        raise UsageError("There is nothing to craft on.", fix="Give --data FOLDER.")
    if share is not None and size is not None:
        raise UsageError("--share and --size exclude each other.", fix="Leave out one of them.")
    if (rest["aware"] is None) != (alpha is None):
        raise UsageError(
            "--aware and --alpha need each other.",
            fix="Give both, such as --aware flag --alpha 0.5.",
        )
    opened = open_network(network_from(rest))
    if opened.entry.task == "detection":
        _refuse(_PIXELS, f"An attack on {opened.entry.name}, a detector,")
        goal = goal or "misclassify"
    else:
        _refuse(_BOXES, f"An attack on {opened.entry.name}, which is no detector,")
    known = load_calibration(calibration, opened) if calibration else None
    if size is None and share is None and start is not None:
        size = patches.size(start)
    size = size or patch_size(opened, LARGE if share is None else share)
    source = CraftData(data, split, limit) if data else None
    reporter = ConsoleReporter()
    if source is None or random:
        info = randomise(
            opened, source, out, size, seed=rest["seed"], calibration=known, reporter=reporter
        )
    else:
        settings = CraftSettings(
            size=size,
            alpha=1.0 if alpha is None else alpha,
            goal=goal,
            target_class=None if target_class is None else class_index(opened, target_class),
            appearance=Appearance(scale=scale),
            **rest,
        )
        colours = palettes.load(palette) if palette else None
        info = craft(
            opened,
            source,
            out,
            settings,
            calibration=known,
            palette=colours,
            start=start,
            reporter=reporter,
        )
    click.echo(info.model_dump_json() if as_json else _summary(out, info))


def _refuse(names: tuple[str, ...], what: str) -> None:
    from zmask_export.errors import UsageError

    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise UsageError(f"{what} has no use for {parameter.opts[0]}.", fix="Leave it out.")


def _summary(out: Path, info: PatchInfo) -> str:
    h, w = info.size
    lines = [f"{out}: {w} x {h} pixels, {info.kind}"]
    if info.goal is not None:
        wanted = "" if info.target_class is None else f" of class {info.target_class}"
        lines[0] += f", {info.goal}{wanted}"
    if info.loss is not None:
        lines[0] += f", attack loss {info.loss:.3f} over {info.images} images"
    if info.evasion is not None:
        lines.append(f"  evasion loss   {info.evasion:.4f}")
    if info.effect is not None:
        lines += _effect(info.effect)
    return "\n".join(lines)


def _effect(effect: Effect | DetectionEffect) -> list[str]:
    from zmask_export.attack.effect import Effect

    lines = []
    if isinstance(effect, Effect):
        lines.append(_change("pixels right", effect.right_clean, effect.right_patched))
    else:
        if effect.found_clean is not None and effect.found_patched is not None:
            lines.append(_change("objects found", effect.found_clean, effect.found_patched))
        if effect.invented is not None:
            lines.append(f"  patch found    {effect.invented:.3f}, as that class")
    if effect.flagged is not None:
        lines.append(f"  images flagged {effect.flagged:.3f}")
    return lines


def _change(what: str, clean: float, patched: float) -> str:
    return f"  {what:14} {clean:.3f} without the patch, {patched:.3f} with it"

"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zmask_export.errors import UsageError
from zmask_export.spec import MAX_SIDE

Function = TypeVar("Function", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
BACKENDS = (
    "auto", "onnxruntime", "onnxruntime-cpu", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx"
)  # fmt: skip
"""Of ``runtime.choice``, which --help does not import."""


class SizeType(click.ParamType):  # type: ignore[type-arg]
    """HxW, such as 360x480."""

    name = "HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        height, cross, width = str(value).lower().partition("x")
        sides = [int(side) for side in (height, width) if side.isdecimal() and len(side) < 6]
        if not cross or len(sides) != 2 or not all(1 <= side <= MAX_SIDE for side in sides):
            raise UsageError(
                f"{value!r} is no size.",
                fix=f"Give height x width in pixels up to {MAX_SIDE}, such as 360x480.",
            )
        return sides[0], sides[1]


def network_options(function: Function) -> Function:
    """--model, --module or --onnx, and everything that says which network is meant."""
    for option in reversed(
        (
            click.option("--model", help="Network, such as icnet."),
            click.option(
                "--module",
                help="In place of --model: package.module:factory of a network of your own; taps are "
                "module paths.",
            ),
            click.option(
                "--onnx",
                type=PATH,
                help="In place of --model: an ONNX file of your own; taps are tensor names.",
            ),
            click.option(
                "--outputs",
                help="Names for your network's outputs, NAME or NAME=SOURCE, separated by commas; logits "
                "are class scores (N, C, h, w).",
            ),
            click.option(
                "--preset",
                help="Preset: a YAML file, or paper. Default: the network's own demo preset.",
            ),
            click.option(
                "--weights",
                type=PATH,
                help="Checkpoint (.safetensors, .pt, .pth), or torchvision for what it publishes.",
            ),
            click.option("--random-weights", is_flag=True, help="Seeded random weights."),
            click.option(
                "--preprocess",
                help="Normalisation of the weights: imagenet, caffe, vgg, unit (none), bytes (x 255).",
            ),
            click.option("--input-size", type=SizeType(), help="Input size, such as 360x480."),
            click.option("--shallow", help="Taps of S, separated by commas."),
            click.option("--deep", help="Taps of D, separated by commas."),
            click.option(
                "--registration",
                type=click.Choice(["paper", "aligned"]),
                help="How pooled maps are laid back onto the grid.",
            ),
            click.option(
                "--fill", type=click.Choice(["black", "mean"]), help="Colour of covered pixels."
            ),
            click.option(
                "--corners",
                type=click.IntRange(0, MAX_SIDE),
                help="Reach in grid cells that squares the mask's corners; 0 as in the paper.",
            ),
            click.option("--detections", type=int, help="A detector's most detections an image."),
            click.option(
                "--box-candidates",
                type=int,
                help="A detector's most candidates a level or class, before suppression.",
            ),
            click.option("--score-threshold", type=float, help="A detector's lowest score."),
            click.option(
                "--iou-threshold",
                type=float,
                help="Overlap above which a detector's boxes are one.",
            ),
        )
    ):
        function = option(function)
    return function


def network_from(values: dict[str, Any]) -> Any:
    """Take the options of :func:`network_options` out of ``values``.

    Raises:
        click.UsageError: no network.
        UsageError: more than one.
    """
    from zmask_export.pipeline.network import NetworkOptions

    model, module, onnx = (values.pop(name) for name in ("model", "module", "onnx"))
    given = sum(name is not None for name in (model, module, onnx))
    if not given:
        raise click.UsageError(
            "Missing option '--model', or '--module' or '--onnx' in its place.",
            click.get_current_context(),
        )
    if given > 1:
        raise UsageError(
            "--model, --module and --onnx exclude each other.",
            fix="Leave in the one that is meant.",
        )
    return NetworkOptions(
        model=model or "",
        module=module,
        onnx=onnx,
        outputs=_names(values.pop("outputs")),
        preset=values.pop("preset"),
        weights=values.pop("weights"),
        random_weights=values.pop("random_weights"),
        preprocess=values.pop("preprocess"),
        input_size=values.pop("input_size"),
        shallow=_names(values.pop("shallow")),
        deep=_names(values.pop("deep")),
        registration=values.pop("registration"),
        fill=values.pop("fill"),
        corners=values.pop("corners"),
        limits=_limits(values),
    )


_LIMITS = {
    "detections": ("detections", "a number of at least 1"),
    "candidates": ("box_candidates", "a number of at least 1"),
    "score_threshold": ("score_threshold", "a number from 0 to 1"),
    "iou_threshold": ("iou_threshold", "a number from 0 to 1"),
}
"""Field of the limits to option and what it takes."""


def _limits(values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from zmask_export.spec import DetectorLimits

    given = {name: values.pop(option) for name, (option, _) in _LIMITS.items()}
    try:
        return DetectorLimits(**given)
    except ValidationError as exc:
        name = str(exc.errors()[0]["loc"][0])
        option, wanted = _LIMITS[name]
        raise UsageError(
            f"--{option.replace('_', '-')} is {given[name]}.", fix=f"Give {wanted}."
        ) from exc


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


on_bad_image = click.option(
    "--on-bad-image",
    type=click.Choice(["error", "skip", "convert"]),
    default="error",
    show_default=True,
    help="What to do with files that are no 8-bit RGB image.",
)

verify_key = click.option(
    "--verify-key",
    type=PATH,
    help="Public key (.pub of keygen) that the bundle must be signed with. Default: signed or not.",
)

sign_key = click.option(
    "--sign-key", type=PATH, help="Private key of keygen: signs the bundle's manifest."
)

on_ray = click.option(
    "--ray",
    "ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Spread the images over a Ray cluster: auto or --ray=ADDRESS joins one, --ray alone starts one "
    "on this machine. Every machine must see the files at the same paths.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

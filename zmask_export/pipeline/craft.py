"""craft: labelled images to a universal adversarial patch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from zmask_export import __version__
from zmask_export.artifacts.calibration import Calibration
from zmask_export.artifacts.files import recover, require_writable, sha256_file
from zmask_export.attack import palette as palettes
from zmask_export.attack import patch as patches
from zmask_export.attack.checkpoint import samples_sha256
from zmask_export.attack.craft import craft as optimise
from zmask_export.attack.craft import random_patch
from zmask_export.attack.detection_effect import DetectionEffect, measure_detector
from zmask_export.attack.effect import Effect, measure
from zmask_export.attack.objectives import objective
from zmask_export.attack.patch import PatchInfo
from zmask_export.attack.placement import require_fits
from zmask_export.attack.settings import CraftSettings
from zmask_export.data.coco import BoxSample
from zmask_export.data.segmentation import Sample
from zmask_export.errors import UsageError
from zmask_export.foreign.onnx_network import OnnxNetwork
from zmask_export.models.bare import BareNetwork
from zmask_export.pipeline.craft_data import CraftData
from zmask_export.pipeline.network import OpenNetwork
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.spec import Size

EFFECT_IMAGES = 10
"""A patch's effect is measured on about this many of its images."""


def craft(
    opened: OpenNetwork,
    data: CraftData,
    out: Path,
    settings: CraftSettings,
    *,
    calibration: Calibration | None = None,
    palette: Tensor | None = None,
    start: Path | None = None,
    reporter: Reporter | None = None,
) -> PatchInfo:
    """Craft a patch and write it as PNG, with its settings and its effect inside.

    Progress is kept beside ``out``; an interrupted run goes on from there.

    Args:
        opened: the bare network.
        data: images to craft on.
        out: the PNG.
        settings: size, epochs and so on; with a goal where the network is a detector.
        calibration: of this network, where the settings look at the defense; where it is fitted, the
            effect says how many of the patched images are flagged.
        palette: printable colours (k, 3) in [0, 1].
        start: patch file to begin with; None begins with noise.
        reporter: shows progress.

    Raises:
        UsageError, CalibrationError: the settings are for another kind of network, or need another
            calibration or a palette.
        DatasetError, ImageError, PatchError, WeightsError, OutputError: see ``attack.craft``.
    """
    reporter = reporter or Silent()
    require_writable(out)
    require_fits(settings.size, opened.input_size)
    _require_goal(settings, opened)
    # What cannot be optimised for is refused here, before the images are read.
    objective(settings, calibration=calibration, palette=palette)
    first = None if start is None else patches.load(start)
    samples = data.load(opened)
    checkpoint = out.with_name(f".{out.name}.progress")
    recover(checkpoint)
    with reporter.bar("crafting", settings.epochs) as advance:
        crafted = optimise(
            _bare(opened, calibration),
            samples,
            settings,
            calibration=calibration,
            palette=palette,
            start=first,
            checkpoint=checkpoint,
            on_epoch=lambda n, value: advance(n, f"loss {value:.3f}"),
        )
    info = _describe(
        opened,
        settings,
        samples,
        calibration,
        kind=settings.kind,
        palette_sha256=None if palette is None else palettes.sha256(palette),
        start_sha256=None if start is None else sha256_file(start),
        loss=crafted.loss,
        evasion=crafted.evasion,
        effect=_effect(
            opened, samples, crafted.patch, settings.target_class, calibration, reporter
        ),
    )
    patches.save(out, crafted.patch, info)
    checkpoint.unlink(missing_ok=True)
    return info


def randomise(
    opened: OpenNetwork,
    data: CraftData | None,
    out: Path,
    size: Size,
    *,
    seed: int = 0,
    calibration: Calibration | None = None,
    reporter: Reporter | None = None,
) -> PatchInfo:
    """Write a patch of uniform noise: an occlusion without intent, which nothing optimises.

    Args:
        opened: the network that it stands beside.
        data: images to measure its effect on; None measures none.
        out: the PNG.
        size: (h, w).
        seed: of the noise.
        calibration: as for :func:`craft`.
        reporter: shows progress.

    Raises:
        UsageError, DatasetError, ImageError, PatchError, OutputError.
    """
    require_writable(out)
    require_fits(size, opened.input_size)
    settings = CraftSettings(size=size, epochs=0, smoothness=0, seed=seed)
    if data is not None:
        _require_task(opened)
    samples: Sequence[Sample | BoxSample] = [] if data is None else data.load(opened)
    patch = random_patch(size, seed)
    effect = None
    if samples:
        effect = _effect(opened, samples, patch, None, calibration, reporter or Silent())
    info = _describe(
        opened, settings, samples, calibration, kind="random", loss=None, effect=effect
    )
    patches.save(out, patch, info)
    return info


def _describe(
    opened: OpenNetwork,
    settings: CraftSettings,
    samples: Sequence[Sample | BoxSample],
    calibration: Calibration | None,
    **outcome: Any,
) -> PatchInfo:
    appearance = settings.appearance
    return PatchInfo(
        tool_version=__version__,
        model=opened.entry.name,
        weights_sha256=opened.weights_sha256,
        size=settings.size,
        image_size=opened.input_size,
        images=len(samples),
        data_sha256=samples_sha256(samples) if samples else None,
        epochs=settings.epochs,
        batch=settings.batch,
        lr=settings.lr,
        seed=settings.seed,
        smoothness=settings.smoothness,
        printability=settings.printability,
        combine=settings.combine,
        beta=settings.beta,
        alpha=settings.alpha,
        aware_images=settings.aware_images,
        balanced=settings.balanced,
        goal=settings.goal,
        target_class=settings.target_class,
        box_weight=settings.box_weight,
        scale=appearance.scale,
        brightness=appearance.brightness,
        contrast=appearance.contrast,
        noise=appearance.noise,
        calibration_sha256=None if calibration is None else calibration.sha256(),
        **outcome,
    )


def _effect(
    opened: OpenNetwork,
    samples: Sequence[Sample | BoxSample],
    patch: Tensor,
    target_class: int | None,
    calibration: Calibration | None,
    reporter: Reporter,
) -> Effect | DetectionEffect:
    step = -(-len(samples) // EFFECT_IMAGES)
    picked = samples[::step]
    bare, saved = _bare(opened, calibration), patches.as_saved(patch)
    with reporter.bar("measuring", len(picked)) as advance:
        if opened.entry.task == "detection":
            return measure_detector(
                bare,
                [sample for sample in picked if isinstance(sample, BoxSample)],
                saved,
                target_class=target_class,
                calibration=calibration,
                on_image=advance,
            )
        return measure(
            bare,
            [sample for sample in picked if isinstance(sample, Sample)],
            saved,
            calibration=calibration,
            on_image=advance,
        )


def _require_goal(settings: CraftSettings, opened: OpenNetwork) -> None:
    if isinstance(opened.bare(), OnnxNetwork):
        raise UsageError(
            "An ONNX file cannot be differentiated, so no patch is crafted.", fix=_ELSEWHERE
        )
    _require_task(opened)
    if (settings.goal is not None) != (opened.entry.task == "detection"):
        raise UsageError(
            f"A goal is for detectors, and {opened.entry.name} is none."
            if settings.goal is not None
            else f"{opened.entry.name} is a detector, and the attack on one has a goal.",
            fix="Leave out --goal." if settings.goal is not None else "Give --goal misclassify.",
        )


_ELSEWHERE = "Craft against the network in PyTorch (--module), and give the patch with --patch."


def _require_task(opened: OpenNetwork) -> None:
    if opened.entry.task == "other":
        raise UsageError(
            f"{opened.entry.name} gives neither logits nor boxes, so no attack on it can be measured.",
            fix="Name its class scores with --outputs logits=OUTPUT, or give a patch file to --patch.",
        )


def _bare(opened: OpenNetwork, calibration: Calibration | None) -> BareNetwork:
    return opened.bare(None if calibration is None else calibration.header.defense)

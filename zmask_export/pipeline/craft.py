"""craft: labelled images to a universal adversarial patch."""

from __future__ import annotations

from pathlib import Path

from zmask_export import __version__
from zmask_export.artifacts.files import require_writable
from zmask_export.attack import patch as patches
from zmask_export.attack.craft import CraftSettings
from zmask_export.attack.craft import craft as optimise
from zmask_export.attack.patch import PatchInfo
from zmask_export.data.segmentation import SegmentationFolder, require_classes
from zmask_export.pipeline.network import OpenNetwork
from zmask_export.pipeline.probe import PATCH_SHARE
from zmask_export.pipeline.progress import Reporter, Silent

LARGE = PATCH_SHARE
"""Side of an L patch as a share of the image's (M is 0.20, S is 0.15)."""


def patch_size(opened: OpenNetwork, share: float) -> tuple[int, int]:
    """(h, w) of a patch whose sides are ``share`` of the image's."""
    h, w = opened.input_size
    return max(1, round(share * h)), max(1, round(share * w))


def craft(
    opened: OpenNetwork,
    data: Path,
    out: Path,
    settings: CraftSettings,
    *,
    split: str = "train",
    limit: int | None = 100,
    reporter: Reporter | None = None,
) -> PatchInfo:
    """Craft a patch and write it as PNG, with its settings inside.

    Progress is kept beside ``out``; an interrupted run goes on from there.

    Args:
        opened: the bare network.
        data: data set in CamVid or Cityscapes layout.
        out: the PNG.
        settings: size, epochs and so on.
        split: which split to craft on.
        limit: at most this many images, spread over the split.
        reporter: shows progress.

    Raises:
        DatasetError, PatchError, OutputError.
    """
    reporter = reporter or Silent()
    require_writable(out)
    folder = SegmentationFolder(data, split, size=opened.input_size, limit=limit)
    require_classes(folder, opened.classes)
    samples = list(folder)
    checkpoint = out.with_name(f".{out.name}.progress")
    with reporter.bar("crafting", settings.epochs) as advance:
        patch, loss = optimise(
            opened.network,
            opened.preprocess,
            samples,
            settings,
            checkpoint=checkpoint,
            identity=f"{opened.weights_sha256} {[s.path.name for s in samples]}",
            on_epoch=lambda n, value: advance(n, f"loss {value:.3f}"),
        )
    info = PatchInfo(
        tool_version=__version__,
        model=opened.entry.name,
        weights_sha256=opened.weights_sha256,
        size=settings.size,
        image_size=opened.input_size,
        images=len(samples),
        epochs=settings.epochs,
        seed=settings.seed,
        smoothness=settings.smoothness,
        balanced=settings.balanced,
        scale=settings.appearance.scale,
        loss=loss,
    )
    patches.save(out, patch, info)
    checkpoint.unlink(missing_ok=True)
    return info

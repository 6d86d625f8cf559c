"""evaluate: a bundle on a labelled data set, under one patch."""

from __future__ import annotations

from pathlib import Path

from zmask_export.artifacts.files import require_writable, write_text
from zmask_export.attack import patch as patches
from zmask_export.data.segmentation import SegmentationFolder, require_classes
from zmask_export.errors import UsageError
from zmask_export.evaluate.page import render
from zmask_export.evaluate.pages import scores_page
from zmask_export.evaluate.segmentation import PASSES, SegmentationScores, evaluate
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.runtime.protected import load
from zmask_export.spec import Policy


def evaluate_bundle(
    bundle: Path,
    data: Path,
    patch: Path,
    *,
    split: str = "val",
    limit: int | None = None,
    seed: int = 0,
    resamples: int = 1000,
    html: Path | None = None,
    reporter: Reporter | None = None,
) -> SegmentationScores:
    """Measure a bundle through its runner.

    Args:
        bundle: the folder that ``build`` wrote.
        data: CamVid or Cityscapes folder.
        patch: patch to attack with.
        split: of the data set.
        limit: at most this many images, spread evenly.
        seed: of the patch's places and of the bootstrap.
        resamples: of the bootstrap.
        html: where to write the same as a page; None writes none.
        reporter: shows progress.

    Raises:
        UsageError: the bundle's policy never masks, so there is nothing to measure.
        DatasetError: the data set has other classes than the network.
        BundleError, PatchError, ImageError, OutputError.
    """
    reporter = reporter or Silent()
    if html is not None:
        require_writable(html)
    engine = load(bundle)
    if engine.manifest.policy is Policy.DETECT:
        raise UsageError(
            "A bundle of policy detect never masks.", fix="Build with --policy gated or mask."
        )
    folder = SegmentationFolder(data, split, size=engine.manifest.input_size, limit=limit)
    require_classes(folder, len(engine.manifest.classes))
    attack = patches.load(patch)
    with reporter.bar("evaluating", PASSES * len(folder)) as advance:
        scores = evaluate(engine, folder, attack, seed=seed, resamples=resamples, on_image=advance)
    if html is not None:
        title = f"{engine.manifest.name} under {patch.name}, on {data.resolve().name} {split}"
        write_text(html, render(scores_page(title, scores)))
    return scores

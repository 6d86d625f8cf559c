"""evaluate: a bundle on a labelled data set."""

from __future__ import annotations

from pathlib import Path

from zmask_export.attack import patch as patches
from zmask_export.data.segmentation import SegmentationFolder, require_classes
from zmask_export.errors import UsageError
from zmask_export.evaluate.segmentation import SegmentationScores, evaluate
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
    reporter: Reporter | None = None,
) -> SegmentationScores:
    """Measure a bundle through its runner.

    Raises:
        UsageError: the bundle's policy never masks, so there is nothing to measure.
        DatasetError: the data set has other classes than the network.
        BundleError, PatchError, ImageError.
    """
    reporter = reporter or Silent()
    engine = load(bundle)
    if engine.manifest.policy is Policy.DETECT:
        raise UsageError(
            "A bundle of policy detect never masks.", fix="Build with --policy gated or mask."
        )
    folder = SegmentationFolder(data, split, size=engine.manifest.input_size, limit=limit)
    require_classes(folder, len(engine.manifest.classes))
    attack = patches.load(patch)
    with reporter.bar("evaluating", len(folder)) as advance:
        return evaluate(engine, list(folder), attack, seed=seed, on_image=advance)

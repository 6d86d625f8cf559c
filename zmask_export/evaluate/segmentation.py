"""How well a protected engine defends a segmentation network, on labelled images.

Every image is run clean and with a patch at a random place, bare and defended, and once more with the
exact patch covered (the oracle). mIoU counts the pixels outside the patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.attack.placement import patch_masks, random_placement
from zmask_export.calibrate import roc
from zmask_export.data.images import to_float
from zmask_export.data.segmentation import Sample
from zmask_export.evaluate.metrics import ConfusionMatrix, mask_iou
from zmask_export.runtime.protected import Protected, Result
from zmask_export.spec import Spec

OFF = 1e30
"""A threshold that no score reaches: the engine then behaves as the bare network."""


class SegmentationScores(Spec):
    """The table of one patch.

    Attributes:
        images: how many.
        clean: mIoU of the bare network.
        clean_defended: mIoU of the defended one on clean images.
        attacked: mIoU of the bare network on patched images.
        defended: mIoU of the defended one on patched images.
        oracle: mIoU with the exact patch covered by the same fill.
        recovered: (defended - attacked) / (oracle - attacked).
        auc: detection of patched against clean images by d.
        true_positive_rate, false_positive_rate: at the engine's threshold.
        mask_iou: mean IoU of covered pixels and patch, over patched images.
        clean_masked: mean share of pixels covered in clean images.
    """

    images: int
    clean: float
    clean_defended: float
    attacked: float
    defended: float
    oracle: float
    recovered: float
    auc: float
    true_positive_rate: float
    false_positive_rate: float
    mask_iou: float
    clean_masked: float


def evaluate(
    engine: Protected,
    samples: Sequence[Sample],
    patch: Tensor,
    *,
    seed: int = 0,
    on_image: Callable[[int], None] | None = None,
) -> SegmentationScores:
    """Fill the table for one patch.

    Args:
        engine: a loaded bundle with policy ``gated`` or ``mask``.
        samples: labelled images of the engine's size.
        patch: (3, h, w) in [0, 1].
        seed: of the places.
        on_image: told the number of images done.
    """
    classes = len(engine.manifest.classes)
    names = ("clean", "clean_defended", "attacked", "defended", "oracle")
    matrices = {name: ConfusionMatrix(classes) for name in names}
    clean_scores, patched_scores, ious, covered = [], [], [], []
    colour = np.array(
        engine.manifest.preprocess.rgb_mean if engine.manifest.fill == "mean" else (0, 0, 0),
        np.float32,
    )[None, :, None, None]
    for index, sample in enumerate(samples):
        rng = np.random.default_rng((seed, index))
        image = to_float([sample.image])
        size = (image.shape[2], image.shape[3])
        place = random_placement(rng, size, (patch.shape[1], patch.shape[2]))
        inside: NDArray[np.bool_] = patch_masks([place], size)[0].numpy()
        attacked = image.copy()
        attacked[0, :, place.rows, place.columns] = patch.numpy()
        exact = np.where(inside[None, None], colour, attacked).astype(np.float32)

        runs: dict[str, tuple[NDArray[Any], float | None, NDArray[np.bool_] | None]] = {
            "clean": (image, OFF, None),
            "clean_defended": (image, None, None),
            "attacked": (attacked, OFF, ~inside),
            "defended": (attacked, None, ~inside),
            "oracle": (exact, OFF, ~inside),
        }
        results: dict[str, Result] = {}
        for name, (x, threshold, valid) in runs.items():
            results[name] = engine.run(x, threshold=threshold)[0]
            matrices[name].update(results[name].prediction, sample.labels, valid)
        clean_scores.append(results["clean_defended"].score)
        patched_scores.append(results["defended"].score)
        ious.append(mask_iou(~results["defended"].mask, inside))
        covered.append(float((~results["clean_defended"].mask).mean()))
        if on_image is not None:
            on_image(index + 1)
    miou = {name: matrix.mean_iou() for name, matrix in matrices.items()}
    clean, patched = np.array(clean_scores), np.array(patched_scores)
    limit = engine.manifest.threshold
    lost = miou["oracle"] - miou["attacked"]
    return SegmentationScores(
        images=len(samples),
        **miou,
        recovered=(miou["defended"] - miou["attacked"]) / lost if lost else float("nan"),
        auc=roc.auc(clean, patched),
        true_positive_rate=float((patched > limit).mean()),
        false_positive_rate=float((clean > limit).mean()),
        mask_iou=float(np.mean(ious)),
        clean_masked=float(np.mean(covered)),
    )

"""Whether a patch works on a segmentation network: its pixels outside the patch, and the defense's flag."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import FiniteFloat
from torch import Tensor

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.losses import at_every_pixel
from zmask_export.attack.pairs import flagged_share, pairs
from zmask_export.attack.placement import patch_masks
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.errors import DatasetError
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import Spec


class Effect(Spec):
    """What a patch does, see ``pairs``.

    Attributes:
        right_clean: share of the labelled pixels outside the patch that the network classifies
            rightly without the patch.
        right_patched: the same pixels, with it.
        flagged: share of the patched images that the defense flags; None where there was none.
    """

    right_clean: FiniteFloat
    right_patched: FiniteFloat
    flagged: FiniteFloat | None = None


def measure(
    bare: BareNetwork,
    samples: Sequence[Sample],
    patch: Tensor,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    on_image: Callable[[int], None] | None = None,
) -> Effect:
    """Run every image with and without a patch.

    Args:
        bare, patch, calibration, seed, on_image: see ``pairs``.
        samples: labelled images.

    Raises:
        DatasetError: not one labelled pixel lies outside the patch.
        PatchError: the patch is larger than the images.
    """
    right, total = np.zeros(2), 0
    flags = []
    for pair in pairs(bare, samples, patch, calibration=calibration, seed=seed, on_image=on_image):
        labels = pair.sample.labels
        size = (labels.shape[0], labels.shape[1])
        counted = ~patch_masks([pair.place], size)[0].numpy() & (labels != IGNORE)
        for k, outputs in enumerate((pair.clean, pair.patched)):
            logits = at_every_pixel(outputs["logits"], size)
            right[k] += (logits[0].argmax(0).numpy() == labels)[counted].sum()
        total += int(counted.sum())
        flags.append(pair.flag)
    if not total:
        raise DatasetError(
            "Not one labelled pixel lies outside the patch.",
            fix="Give labelled images, or a smaller patch.",
        )
    return Effect(
        right_clean=right[0] / total, right_patched=right[1] / total, flagged=flagged_share(flags)
    )

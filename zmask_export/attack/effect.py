"""Whether a patch works: the network's pixels under it, and the defense's flag."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import FiniteFloat
from torch import Tensor

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.placement import paste, patch_masks, random_placement
from zmask_export.data.images import to_float
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.defense.zmask import ZMask
from zmask_export.errors import DatasetError
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import Policy, Spec


class Effect(Spec):
    """What a patch does, at scale 1 and as it is, one random place an image.

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
        bare: the network, with the taps of the calibration.
        samples: labelled images.
        patch: (3, h, w) in [0, 1].
        calibration: a defense; it is asked for its flag where it is fitted.
        seed: of the places.
        on_image: told the number of images done.

    Raises:
        DatasetError: not one labelled pixel lies outside the patch.
        PatchError: the patch is larger than the images.
    """
    defended = None
    if calibration is not None and calibration.fitted:
        defended = ZMask(bare, calibration, Policy.DETECT, form="deployed")
    right, total = np.zeros(2), 0
    flags = []
    for index, sample in enumerate(samples):
        rng = np.random.default_rng((seed, index))
        clean = torch.from_numpy(to_float([sample.image]))
        size = (clean.shape[2], clean.shape[3])
        place = random_placement(rng, size, (patch.shape[1], patch.shape[2]))
        patched = paste(clean, [patch], [place])
        with torch.inference_mode():
            before = bare.predict(clean)["logits"]
            after = bare.predict(patched) if defended is None else defended(patched)
        if defended is not None:
            flags.append(bool(after["flag"]))
        counted = ~patch_masks([place], size)[0].numpy() & (sample.labels != IGNORE)
        for k, logits in enumerate((before, after["logits"])):
            right[k] += (logits[0].argmax(0).numpy() == sample.labels)[counted].sum()
        total += int(counted.sum())
        if on_image is not None:
            on_image(index + 1)
    if not total:
        raise DatasetError(
            "Not one labelled pixel lies outside the patch.",
            fix="Give labelled images, or a smaller patch.",
        )
    return Effect(
        right_clean=right[0] / total,
        right_patched=right[1] / total,
        flagged=float(np.mean(flags)) if defended is not None else None,
    )

"""Every image without and with a patch: what the network says, and the defense's flag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.placement import Placement, paste, random_placement
from zmask_export.data.coco import BoxSample
from zmask_export.data.images import to_float
from zmask_export.data.segmentation import Sample
from zmask_export.defense.zmask import ZMask
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import Policy

SampleT = TypeVar("SampleT", Sample, BoxSample)


@dataclass(frozen=True)
class Pair(Generic[SampleT]):
    """One image.

    Attributes:
        sample: it.
        place: where the patch is.
        clean, patched: the network's outputs by name, batches of one image.
        flag: whether the defense flags the patched image; None where there is none.
    """

    sample: SampleT
    place: Placement
    clean: dict[str, Tensor]
    patched: dict[str, Tensor]
    flag: bool | None


def pairs(
    bare: BareNetwork,
    samples: Sequence[SampleT],
    patch: Tensor,
    *,
    calibration: Calibration | None,
    seed: int,
    on_image: Callable[[int], None] | None,
) -> Iterator[Pair[SampleT]]:
    """Run every image with and without a patch, at scale 1 and as it is, one random place an image.

    Args:
        bare: the network, with the taps of the calibration.
        samples: the images.
        patch: (3, h, w) in [0, 1].
        calibration: a defense; it is asked for its flag where it is fitted.
        seed: of the places.
        on_image: told the number of images done.

    Raises:
        PatchError: the patch is larger than the images.
    """
    defended = None
    if calibration is not None and calibration.fitted:
        defended = ZMask(bare, calibration, Policy.DETECT, form="deployed")
    for index, sample in enumerate(samples):
        rng = np.random.default_rng((seed, index))
        clean = torch.from_numpy(to_float([sample.image]))
        size = (clean.shape[2], clean.shape[3])
        place = random_placement(rng, size, (patch.shape[1], patch.shape[2]))
        patched = paste(clean, [patch], [place])
        with torch.inference_mode():
            before = bare.predict(clean)
            after = bare.predict(patched) if defended is None else defended(patched)
        flag = None if defended is None else bool(after["flag"])
        yield Pair(sample, place, before, after, flag)
        if on_image is not None:
            on_image(index + 1)


def flagged_share(flags: Sequence[bool | None]) -> float | None:
    """Share of the images that are flagged; None without a defense."""
    known = [flag for flag in flags if flag is not None]
    return float(np.mean(known)) if known else None

"""The attack on a segmentation network: untargeted, on the pixels outside the patch (Nesti et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zmask_export.attack.directions import blend, direction
from zmask_export.attack.fast import fast_copy
from zmask_export.attack.losses import (
    PixelLosses,
    at_every_pixel,
    class_balance,
    pixel_losses,
)
from zmask_export.attack.placement import Placement, patch_masks
from zmask_export.attack.scene import Scene
from zmask_export.attack.settings import Combine
from zmask_export.data.images import to_float
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.errors import DatasetError
from zmask_export.models.bare import BareNetwork


@dataclass(frozen=True)
class PixelAttack:
    """The segmentation loss of a batch, to be raised.

    Attributes:
        pixels: cross-entropies outside the patches.
        combine: how right and wrong pixels share g_adv.
    """

    pixels: PixelLosses
    combine: Combine = "sum"

    @property
    def loss(self) -> Tensor:
        """The segmentation loss."""
        return self.pixels.total

    def direction(self, patch: Tensor) -> Tensor:
        """Where the segmentation loss grows, as a direction to descend along."""
        pixels = self.pixels
        if self.combine == "sum":
            return direction(-pixels.total, patch)
        return blend(
            [
                (pixels.share, direction(-pixels.right, patch)),
                (1 - pixels.share, direction(-pixels.wrong, patch)),
            ]
        )


class SegmentationVictim:
    """A segmentation network and its labelled images.

    Args:
        bare: the network; it is not changed.
        samples: images of one size with labels.
        taps: activations that a scene must hold.
        combine: how right and wrong pixels share g_adv.
        balanced: weight every class the same instead of every pixel.

    Raises:
        DatasetError: no image, or no labelled pixel.
    """

    def __init__(
        self,
        bare: BareNetwork,
        samples: Sequence[Sample],
        taps: Sequence[str],
        *,
        combine: Combine,
        balanced: bool,
    ) -> None:
        if not any((sample.labels != IGNORE).any() for sample in samples):
            raise DatasetError(
                "There is no image to craft on, or none with a label.",
                fix="Give a folder with labelled images.",
            )
        self._samples = samples
        self._combine = combine
        self._weights = _class_weights(bare, samples) if balanced else None
        paths = {tap: bare.paths[tap] for tap in taps}
        network = fast_copy(bare.network, paths)
        self._bare = bare.with_network(network, paths)

    def scene(
        self,
        picked: Sequence[int],
        patched: Tensor,
        places: Sequence[Placement],
        rng: np.random.Generator,
    ) -> Scene:
        """See ``Victim``; all images count. The network runs in bfloat16."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs, features = self._bare(patched.contiguous(memory_format=torch.channels_last))
        labels = torch.from_numpy(np.stack([self._samples[i].labels for i in picked])).long()
        masks = patch_masks(places, (patched.shape[2], patched.shape[3]))
        logits = at_every_pixel(outputs["logits"], (labels.shape[1], labels.shape[2]))
        pixels = pixel_losses(logits, labels, ~masks, self._weights)
        return Scene(PixelAttack(pixels, self._combine), features, masks)


def _class_weights(bare: BareNetwork, samples: Sequence[Sample]) -> Tensor:
    with torch.inference_mode():
        logits = bare.predict(torch.from_numpy(to_float([samples[0].image])))["logits"]
    return class_balance((sample.labels for sample in samples), int(logits.shape[1]))

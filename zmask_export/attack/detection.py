"""The attack on a detector: Eq. 8 and 9 with the signs of a goal (B.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zmask_export.attack.detector_losses import BOX_LOSSES, CLASS_LOSSES, detector_losses
from zmask_export.attack.directions import Weighted, blend, direction
from zmask_export.attack.fast import fast_copy, run_in_bfloat16
from zmask_export.attack.placement import Placement, patch_masks
from zmask_export.attack.scene import Scene
from zmask_export.attack.settings import Goal
from zmask_export.attack.targets import Targets
from zmask_export.data.coco import BoxSample
from zmask_export.models.detection.network import DetectorNetwork
from zmask_export.models.taps import Taps

SIGNS: dict[Goal, tuple[int, int]] = {
    "misclassify": (-1, 1),
    "untargeted": (-1, -1),
    "false-detection": (1, 1),
}
"""Signs of w_class and w_regr, of the heads and of an RPN alike."""
_HEAVY = ("backbone", "head", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor")


@dataclass(frozen=True)
class BoxAttack:
    """The losses of a batch, each with its weight.

    Attributes:
        terms: (w_i, L_i) of Eq. 8 or 9.
    """

    terms: Sequence[Weighted]

    @property
    def loss(self) -> Tensor:
        """L_adv-eff = sum of w_i L_i, to be lowered."""
        first, *rest = (weight * loss for weight, loss in self.terms)
        return sum(rest, start=first)

    def direction(self, patch: Tensor) -> Tensor:
        """n(sum of w_i n(grad L_i)): every loss pulls with its weight, however large it is."""
        return blend([(weight, direction(loss, patch)) for weight, loss in self.terms])


def weigh(losses: dict[str, Tensor], goal: Goal, box_weight: float) -> BoxAttack:
    """Give every loss the sign that a goal asks for, and those of boxes their weight.

    A loss of weight 0 is left out.

    Args:
        losses: of ``detector_losses``.
        goal: what the detector shall do.
        box_weight: |w_regr| against |w_class| = 1.
    """
    for_class, for_boxes = SIGNS[goal]
    terms: list[Weighted] = [(for_class, losses[name]) for name in CLASS_LOSSES if name in losses]
    if box_weight > 0:
        weight = for_boxes * box_weight
        terms += [(weight, losses[name]) for name in BOX_LOSSES if name in losses]
    return BoxAttack(terms)


class DetectorVictim:
    """A detector and its images with boxes.

    An image counts in a step where it has a target: for ``misclassify`` and ``untargeted`` a box that the
    patch leaves free. Without one, all that its losses say is that nothing is there, and in a RetinaNet's,
    which divides by the number of objects, it would outweigh the rest of the batch.

    Args:
        bare: one of torchvision's detectors; it is not changed.
        samples: images of one size with boxes.
        taps: activations that a scene must hold.
        targets: what the images should give.
        box_weight: |w_regr| against |w_class| = 1.

    Raises:
        DatasetError: no image, or none with a box, where the goal needs one.
    """

    def __init__(
        self,
        bare: DetectorNetwork,
        samples: Sequence[BoxSample],
        taps: Sequence[str],
        *,
        targets: Targets,
        box_weight: float,
    ) -> None:
        targets.require_some(samples)
        self._samples = samples
        self._targets = targets
        self._box_weight = box_weight
        self._paths = {tap: bare.paths[tap] for tap in taps}
        self._bare = bare
        self._network = fast_copy(bare.network, self._paths)
        run_in_bfloat16(self._network, _HEAVY)

    def scene(
        self,
        picked: Sequence[int],
        patched: Tensor,
        places: Sequence[Placement],
        rng: np.random.Generator,
    ) -> Scene | None:
        """See ``Victim``. Backbone and heads run in bfloat16, the losses in float32."""
        seed = int(rng.integers(1 << 62))
        wanted = [
            self._targets.of(self._samples[i], p) for i, p in zip(picked, places, strict=True)
        ]
        kept = [k for k, target in enumerate(wanted) if len(target["labels"])]
        if not kept:
            return None
        # Mean and deviation are those of the network's own transform.
        shown = patched.flip(1) if self._bare.preprocess.bgr else patched
        with Taps(self._network, self._paths) as taps:
            losses = detector_losses(
                self._network, [shown[k] for k in kept], [wanted[k] for k in kept], seed
            )
        masks = patch_masks([places[k] for k in kept], (patched.shape[2], patched.shape[3]))
        attack = weigh(losses, self._targets.goal, self._box_weight)
        frame = self._bare.frame((patched.shape[2], patched.shape[3]))
        features = {tap: frame.within(h) for tap, h in taps.features.items()}
        return Scene(attack, features, masks)

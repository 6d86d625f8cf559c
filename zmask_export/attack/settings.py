"""What a patch shall be and how it is searched for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from zmask_export.attack.transforms import Appearance
from zmask_export.errors import UsageError
from zmask_export.spec import Size

Combine = Literal["sum", "paper"]
"""How pixels that are still right and pixels that are wrong already share the attack's gradient:

- ``sum``: n(-grad(gamma L_right + (1 - gamma) L_wrong)). Wrong pixels have the larger cross-entropies
  and pull the harder.
- ``paper``: n(-gamma n(grad L_right) - (1 - gamma) n(grad L_wrong)), as B.2 has it. gamma alone
  divides the step; a second backward pass is the price.
"""
Aware = Literal["mask", "flag"]
"""What a defense-aware attack turns against: the soft mask (Adv-Mask) or the flag (Adv-Flag)."""
Goal = Literal["misclassify", "untargeted", "false-detection"]
"""What a detector shall do (B.1), as signs of its losses on classes and on boxes:

- ``misclassify``: -, +. Other classes on boxes that are kept: the paper's choice.
- ``untargeted``: -, -. Anything but the truth.
- ``false-detection``: +, +. An object of a chosen class where the patch is, and nothing else.
"""
Kind = Literal["adversarial", "over-activation", "adv-mask", "adv-flag", "random"]
"""What a patch was made for."""


@dataclass(frozen=True)
class CraftSettings:
    """Settings of one run.

    Attributes:
        size: (h, w) of the patch in pixels.
        epochs: passes over the images.
        batch: images a step.
        lr: Adam's step, in units of the colour range; follows a cosine to a tenth.
        smoothness: w_S, the weight of the smoothness gradient (Eq. 12).
        printability: w_N, the weight of the non-printability gradient (Eq. 12).
        combine: how right and wrong pixels share the attack's gradient.
        beta: weight of the attack against (1 - beta) of the over-activation (Eq. 13).
        aware: what of the defense is attacked too.
        alpha: weight of the attack against (1 - alpha) of that (Eq. 6).
        aware_images: images of a batch that the defense is computed on; None takes all.
        balanced: weight every class the same, as mIoU does, instead of every pixel.
        goal: what a detector shall do; None for a segmentation network.
        target_class: label of the false detection, from 1 on.
        box_weight: |w_regr| of Eq. 8 and 9 against |w_class| = 1.
        appearance: EOT ranges.
        seed: of everything random.

    Raises:
        UsageError: a value is out of its range, or two contradict each other.
    """

    size: Size
    epochs: int = 60
    batch: int = 5
    lr: float = 0.1
    smoothness: float = 0.1
    printability: float = 0.0
    combine: Combine = "sum"
    beta: float = 1.0
    aware: Aware | None = None
    alpha: float = 1.0
    aware_images: int | None = None
    balanced: bool = False
    goal: Goal | None = None
    target_class: int | None = None
    box_weight: float = 1.0
    appearance: Appearance = field(default_factory=Appearance)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("beta", self.beta), ("alpha", self.alpha)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}.", fix=f"Give a {name} from 0 to 1.")
        for name, value in (("smoothness", self.smoothness), ("printability", self.printability)):
            if not 0 <= value < math.inf:
                raise UsageError(
                    f"The weight of the {name} is {value}.", fix="Give 0 or a positive number."
                )
        if not 0 < self.lr < math.inf:
            raise UsageError(f"A step of {self.lr} leads nowhere.", fix="Give --lr 0.1.")
        low, high = self.appearance.scale
        if not 0 < low <= high < math.inf:
            raise UsageError(
                f"Sizes from {low} to {high} are no range.", fix="Give --scale 0.8 1.2."
            )
        if self.seed < 0:
            raise UsageError(f"The seed is {self.seed}.", fix="Give 0 or a positive number.")
        if self.aware_images is not None and (self.aware is None or self.aware_images < 1):
            raise UsageError(
                f"{self.aware_images} images of a batch are for a defense-aware attack, 1 or more.",
                fix="Give --aware too, or leave out --aware-images.",
            )
        if self.aware is not None and self.beta < 1:
            raise UsageError(
                "A defense-aware attack has no beta: Eq. 6 and Eq. 13 are two attacks.",
                fix="Leave out --beta or --aware.",
            )
        if self.aware is None and self.alpha < 1:
            raise UsageError(
                f"alpha is {self.alpha}, but no part of the defense is attacked.",
                fix="Give --aware mask or --aware flag.",
            )
        self._check_goal()

    def _check_goal(self) -> None:
        if self.goal is None and (self.target_class is not None or self.box_weight != 1):
            raise UsageError(
                "A class or a weight of boxes is for detectors.",
                fix="Leave out --class, --box-weight.",
            )
        if self.goal is not None and (self.balanced or self.combine != "sum"):
            raise UsageError(
                "Pixels are weighed in an attack on a segmentation network only.",
                fix="Leave out --balanced and --combine.",
            )
        if not 0 <= self.box_weight < math.inf:
            raise UsageError(
                f"The weight of the boxes is {self.box_weight}.", fix="Give 0 or a positive number."
            )
        if (self.goal == "false-detection") != (self.target_class is not None):
            raise UsageError(
                "A false detection and a class need each other.",
                fix="Give both, such as --goal false-detection --class 1, or neither.",
            )
        if self.target_class is not None and self.target_class < 1:
            raise UsageError(
                f"A detector has no class {self.target_class}: 0 is the background.",
                fix="Give --class 1 or higher.",
            )

    @property
    def kind(self) -> Kind:
        """What the patch is made for. beta = 1 or alpha = 1 is the plain attack."""
        if self.share == 1:
            return "adversarial"
        if self.aware is None:
            return "over-activation"
        return "adv-mask" if self.aware == "mask" else "adv-flag"

    @property
    def share(self) -> float:
        """Weight of the attack: alpha of a defense-aware one, else beta."""
        return self.beta if self.aware is None else self.alpha

    def learning_rate(self, epoch: int) -> float:
        """Adam's step in an epoch."""
        return self.lr * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * epoch / max(self.epochs, 1))))

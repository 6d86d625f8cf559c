"""The direction of one step: gradients of all losses, each normalised, then weighed (B.2).

With n(v) = v / ||v||_2 and t = beta (Eq. 13) or alpha (Eq. 6), a step descends along

    n( (1 - t) n(grad L_evasion) + t (g_adv + w_S n(grad L_S) + w_N n(grad L_N)) )

g_adv is the adversarial direction of the scene, L_evasion is L_OZ, or what Adv-Mask or Adv-Flag adds; the
bracket behind t is L_Adv of Eq. 12, with w_adv = 1. A loss of weight 0 is not evaluated, so t = 1 is the
plain attack to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.aware import DefenseEvasion
from zmask_export.attack.directions import Weighted, blend, direction
from zmask_export.attack.losses import smoothness
from zmask_export.attack.overactivation import OverActivation
from zmask_export.attack.printability import log_non_printability
from zmask_export.attack.scene import Evasion, Scene
from zmask_export.attack.settings import CraftSettings
from zmask_export.errors import UsageError


@dataclass(frozen=True)
class Step:
    """What one batch says.

    Attributes:
        gradient: the direction to descend, (3, h, w), of length 1 (or 0).
        loss: of the adversarial term, see ``Adversarial``.
        evasion: the evasion loss, which it lowers; None where there is none.
    """

    gradient: Tensor
    loss: float
    evasion: float | None


@dataclass(frozen=True)
class Objective:
    """What a patch is optimised for beside misleading the network, and how all of it is weighed.

    Attributes:
        smoothness: w_S.
        printability: w_N.
        palette: printable colours (k, 3) in [0, 1], for w_N > 0.
        share: t, the weight of L_Adv.
        evasion: the loss of weight 1 - t, for t < 1.
    """

    smoothness: float = 0.0
    printability: float = 0.0
    palette: Tensor | None = None
    share: float = 1.0
    evasion: Evasion | None = None

    @property
    def taps(self) -> tuple[str, ...]:
        """Activations that a :class:`Scene` must hold."""
        return () if self.evasion is None else self.evasion.taps

    def step(self, patch: Tensor, scene: Scene) -> Step:
        """Losses and direction for a batch that was made from ``patch`` (3, h, w)."""
        parts: list[Weighted] = []
        evasion = None
        if self.evasion is not None:
            loss = self.evasion(scene)
            parts.append((1 - self.share, direction(loss, patch)))
            evasion = float(loss.detach())
        if self.share > 0:
            parts.append((self.share, scene.adversarial.direction(patch)))
            if self.smoothness > 0:
                smooth = direction(smoothness(patch), patch)
                parts.append((self.share * self.smoothness, smooth))
            if self.printability > 0 and self.palette is not None:
                printable = direction(log_non_printability(patch, self.palette), patch)
                parts.append((self.share * self.printability, printable))
        return Step(blend(parts), float(scene.adversarial.loss.detach()), evasion)


def objective(
    settings: CraftSettings,
    *,
    calibration: Calibration | None = None,
    palette: Tensor | None = None,
) -> Objective:
    """The objective that settings describe.

    Raises:
        UsageError: a calibration or a palette is missing.
        CalibrationError: a defense-aware attack and a calibration that is not fitted.
    """
    if (settings.printability > 0) != (palette is not None):
        raise UsageError(
            "A palette and a weight of the printability need each other.",
            fix="Give both --palette FILE and --printability 0.1, or neither.",
        )
    evasion: Evasion | None = None
    if settings.share < 1:
        if calibration is None:
            raise UsageError(
                f"A patch of kind {settings.kind} needs the network's calibration.",
                fix="Give --calibration FILE.",
            )
        if settings.aware is None:
            evasion = OverActivation(calibration)
        else:
            evasion = DefenseEvasion(calibration, settings.aware, settings.aware_images)
    return Objective(
        smoothness=settings.smoothness,
        printability=settings.printability,
        palette=palette,
        share=settings.share,
        evasion=evasion,
    )

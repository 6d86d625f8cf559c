"""Z-Mask around a network: the literal PyTorch form of the paper, and its fast twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zmask_export.artifacts.calibration import Calibration
from zmask_export.defense import fusion
from zmask_export.defense.cascade import deployed_heatmap, literal_heatmap
from zmask_export.defense.zscore import zscore
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import DefenseSpec, Fill, Policy

Form = Literal["literal", "deployed"]


class Heatmaps(nn.Module):
    """Tapped activations to heatmaps: z-score, cascade, pixel-wise maximum over S and D.

    Args:
        defense: taps, kernels, grid, registration.
        mean: tap to mu (C,).
        std: tap to sigma (C,).
        form: "literal" is Eq. 3 as written; "deployed" the matrix form.
    """

    def __init__(
        self,
        defense: DefenseSpec,
        mean: dict[str, Tensor],
        std: dict[str, Tensor],
        form: Form = "literal",
    ) -> None:
        super().__init__()
        self.defense = defense
        self.form = form
        for index, tap in enumerate(defense.taps):
            self.register_buffer(f"mean_{index}", mean[tap])
            self.register_buffer(f"std_{index}", std[tap])

    @classmethod
    def of(cls, calibration: Calibration, form: Form = "literal") -> Heatmaps:
        """The heatmaps of a calibration, which need not be fitted."""
        return cls(
            calibration.header.defense,
            {tap: torch.from_numpy(v) for tap, v in calibration.mean.items()},
            {tap: torch.from_numpy(v) for tap, v in calibration.std.items()},
            form,
        )

    def zscores(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """z-scores (N, C, h, w) of every tap."""
        return {
            tap: zscore(
                features[tap],
                self.get_buffer(f"mean_{index}"),
                self.get_buffer(f"std_{index}"),
            )
            for index, tap in enumerate(self.defense.taps)
        }

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Heatmaps (N, 1, HR, WR) by name.

        ``shallow`` (HS), ``deep`` (HD), and ``shallow.<tap>``, ``deep.<tap>`` for every layer.
        """
        heatmap = literal_heatmap if self.form == "literal" else deployed_heatmap
        scores = self.zscores(features)
        maps: dict[str, Tensor] = {}
        for branch, taps, kernels in self.defense.branches():
            layers = {
                f"{branch}.{tap}": heatmap(
                    scores[tap], kernels, self.defense.grid, self.defense.registration
                )
                for tap in taps
            }
            maps |= layers
            maps[branch] = torch.stack(list(layers.values())).amax(dim=0)
        return maps


def fill_colour(bare: BareNetwork, fill: Fill, like: Tensor) -> Tensor:
    """The RGB colour (3, 1, 1) of covered pixels."""
    colour = bare.preprocess.colour(fill)
    return torch.tensor(colour, dtype=like.dtype, device=like.device)[:, None, None]


def cover(image: Tensor, mask: Tensor, colour: Tensor) -> Tensor:
    """x * M, with covered pixels set to ``colour``."""
    return image * mask + colour * (1 - mask)


@dataclass(frozen=True)
class Observation:
    """The first pass over a batch.

    Attributes:
        image: the batch.
        outputs: the network's outputs by name.
        maps: heatmaps by name, see :class:`Heatmaps`.
    """

    image: Tensor
    outputs: dict[str, Tensor]
    maps: dict[str, Tensor]


class ZMask(nn.Module):
    """A network protected by Z-Mask: hooks, Eq. 3 and Eq. 4 (the reference, with "literal").

    Args:
        bare: the network with at least the defense's taps.
        calibration: a fitted calibration.
        policy: what to do with the mask.
        form: see :class:`Heatmaps`.

    Raises:
        CalibrationError: the calibration is not fitted.
    """

    def __init__(
        self,
        bare: BareNetwork,
        calibration: Calibration,
        policy: Policy = Policy.GATED,
        form: Form = "literal",
    ) -> None:
        super().__init__()
        parameters, threshold = calibration.require_fitted()
        defense = calibration.header.defense
        self.bare = bare
        self.policy = policy
        self.fill = defense.fill
        self.corners = defense.corners
        self.heatmaps = Heatmaps.of(calibration, form)
        self.register_buffer("parameters_", torch.from_numpy(parameters))
        self.register_buffer("threshold", torch.tensor(threshold))

    def forward(self, image: Tensor, threshold: Tensor | None = None) -> dict[str, Tensor]:
        """The engine's outputs by name.

        Args:
            image: float32 (N, 3, H, W), RGB in [0, 1].
            threshold: lambda0; the calibrated one where None.
        """
        return self.decide(self.observe(image), threshold)

    def observe(self, image: Tensor) -> Observation:
        """The first pass, which no threshold has a part in."""
        outputs, features = self.bare(image)
        return Observation(image, outputs, self.heatmaps(features))

    def decide(self, seen: Observation, threshold: Tensor | None = None) -> dict[str, Tensor]:
        """What :meth:`forward` gives, of a first pass that has been made."""
        image, outputs, maps = seen.image, seen.outputs, seen.maps
        limit = self.get_buffer("threshold") if threshold is None else threshold.reshape(())
        parameters = self.get_buffer("parameters_")
        found = fusion.detect(image, maps["shallow"], maps["deep"], parameters, limit, self.corners)
        again = self.policy is Policy.MASK or (
            self.policy is Policy.GATED and bool(found.flag.any())
        )
        if again:
            colour = fill_colour(self.bare, self.fill, image)
            outputs = self.bare.predict(cover(image, found.mask, colour))
        result = dict(outputs)
        result["mask"] = found.mask
        result["score"] = found.score
        result["flag"] = found.flag
        result["soft_mask"] = found.soft_mask
        result["heatmap_shallow"] = found.shallow
        result["heatmap_deep"] = found.deep
        for name, value in maps.items():
            if "." in name:
                result[f"heatmap.{name}"] = value
        return result

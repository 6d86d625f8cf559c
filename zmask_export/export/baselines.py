"""The rival defenses as ONNX graphs.

Both forms take ``image`` (float32 N, 3, H, W, RGB in [0, 1]) like every graph of this package.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from torch import Tensor, nn

from zmask_export.defense.baselines.fpda import Fpda
from zmask_export.defense.baselines.hyperneuron import HyperNeuron
from zmask_export.defense.baselines.lgs import LocalGradientsSmoothing
from zmask_export.defense.baselines.masknet import MaskNet
from zmask_export.errors import UsageError
from zmask_export.export.bare import export_bare
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import PREPROCESS, Size


class _Filtered(BareNetwork):
    """A filter of images in the place of the network; normalisation is the filter's own affair."""

    def __init__(self, rival: LocalGradientsSmoothing | MaskNet) -> None:
        super().__init__(rival, PREPROCESS["unit"], {}, ("protected", "rival_mask"))
        self.rival = rival

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        mask = self.rival.mask(image)
        return dict(zip(self.outputs, (image * mask, mask), strict=True))


class _Scored(BareNetwork):
    """A network whose outputs include the scores of detectors on one of its layers."""

    def __init__(
        self, bare: BareNetwork, tap: str, detectors: Mapping[str, HyperNeuron | Fpda]
    ) -> None:
        names = (*bare.outputs, *(f"score.{name}" for name in detectors))
        super().__init__(bare.network, bare.preprocess, {}, names)
        self.tap = tap
        self.bare = BareNetwork(bare.network, bare.preprocess, {tap: bare.paths[tap]}, bare.outputs)
        self.detectors = nn.ModuleDict(detectors)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        outputs, features = self.bare(image)
        scores = (detector(features[self.tap]) for detector in self.detectors.values())
        return dict(zip(self.outputs, (*outputs.values(), *scores), strict=True))


def export_filter(
    rival: LocalGradientsSmoothing | MaskNet, size: Size, batch: int | None = None
) -> ir.Model:
    """LGS or MaskNet: ``image`` to ``protected``, the image to give to the network, and ``rival_mask``.

    Args:
        rival: the defense, in eval mode.
        size: (H, W); fixed in the graph.
        batch: fixed batch size, or None for a dynamic one.

    Returns:
        A model with outputs ``protected`` (N, 3, H, W) and ``rival_mask`` (N, 1, H, W), both in [0, 1].

    Raises:
        CompileError: the exporter refuses it.
    """
    return export_bare(_Filtered(rival), size, batch)


def export_detectors(
    bare: BareNetwork,
    tap: str,
    detectors: Mapping[str, HyperNeuron | Fpda],
    size: Size,
    batch: int | None = None,
) -> ir.Model:
    """A bare network with HN and FPDA on one of its layers.

    Args:
        bare: the network, with at least this tap.
        tap: the layer that the detectors were measured on.
        detectors: name to detector.
        size: (H, W); fixed in the graph.
        batch: fixed batch size, or None for a dynamic one.

    Returns:
        A model with the network's outputs and one ``score.<name>`` (N,) a detector.

    Raises:
        UsageError: the network does not read this tap.
        ShapeError: the detectors were measured at another layer or input size.
        CompileError: the exporter refuses it.
    """
    if tap not in bare.paths:
        raise UsageError(
            f"The network does not read the tap {tap!r}.",
            fix=f"Choose one of: {', '.join(bare.paths)}.",
        )
    return export_bare(_Scored(bare, tap, detectors), size, batch)

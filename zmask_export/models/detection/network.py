"""Detectors as bare networks: torchvision's own forward pass, and its twin in plain operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from zmask_export.errors import CompileError
from zmask_export.models.bare import BareNetwork
from zmask_export.models.detection.frame import Frame
from zmask_export.models.detection.limits import Detector, most_detections
from zmask_export.models.detection.single_stage import PlainRetinaNet, PlainSSD
from zmask_export.models.detection.two_stage import PlainFasterRCNN
from zmask_export.models.registry import normalise
from zmask_export.spec import DETECTION_OUTPUTS, Preprocess, Size


class DetectorNetwork(BareNetwork):
    """A torchvision detector as it is: its own transform, its own forward pass.

    ``predict`` takes images float32 (N, 3, H, W), RGB in [0, 1], and returns ``boxes`` float32
    (N, K, 4) in pixels of these images, ``scores`` (N, K), ``labels`` int64 (N, K) and ``count`` int64
    (N,); rows from ``count`` on are 0. ``forward`` also returns the tapped activations, without the part
    that lies over the transform's padding.

    Args:
        network: a RetinaNet, an SSD or a FasterRCNN, in eval mode.
        preprocess: what its transform does, for whoever asks; the transform itself is set to it.
        paths: tap name to module path.
    """

    network: Detector

    def __init__(self, network: Detector, preprocess: Preprocess, paths: dict[str, str]) -> None:
        super().__init__(network, preprocess, paths, DETECTION_OUTPUTS)
        network.transform.image_mean = list(preprocess.mean)
        network.transform.image_std = list(preprocess.std)
        self._frames: dict[Size, Frame] = {}

    def forward(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        outputs, features = super().forward(image)
        frame = self.frame((image.shape[2], image.shape[3]))
        return outputs, {tap: frame.within(h) for tap, h in features.items()}

    def frame(self, size: Size) -> Frame:
        """What the transform makes of images of a size (H, W)."""
        if size not in self._frames:
            self._frames[size] = Frame(self.network.transform, size)
        return self._frames[size]

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """The detections alone."""
        shown = image.flip(1) if self.preprocess.bgr else image
        found = self.network(list(shown))
        most = most_detections(self.network)
        padded = {
            name: torch.stack([_filled(one[name], most) for one in found])
            for name in ("boxes", "scores", "labels")
        }
        counts = torch.tensor([len(one["scores"]) for one in found])
        return padded | {"count": counts.to(image.device)}


def _filled(values: Tensor, most: int) -> Tensor:
    """The first dimension filled up to ``most`` with zeros."""
    return F.pad(values, (0, 0) * (values.ndim - 1) + (0, most - len(values)))


class PlainDetector(BareNetwork):
    """The same detector, for images of one size, in operators that every target has.

    Its modules are those of the detector that it is made from, so taps name the same layers.

    Args:
        reference: the detector.
        size: (H, W).

    Raises:
        UsageError: more candidates than a target's top-k gives.
        CompileError: a detector of another kind.
    """

    plain: PlainRetinaNet | PlainSSD | PlainFasterRCNN

    def __init__(self, reference: DetectorNetwork, size: Size) -> None:
        super().__init__(
            reference.network, reference.preprocess, reference.paths, DETECTION_OUTPUTS
        )
        self.plain = _plain(reference.network, size)

    def forward(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        outputs, features = super().forward(image)
        return outputs, {tap: self.plain.frame.within(h) for tap, h in features.items()}

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """The detections alone."""
        values = self.plain(normalise(image, self.preprocess))
        return dict(zip(self.outputs, values, strict=True))


def _plain(network: Detector, size: Size) -> PlainRetinaNet | PlainSSD | PlainFasterRCNN:
    if isinstance(network, RetinaNet):
        return PlainRetinaNet(network, size).eval()
    if isinstance(network, SSD):
        return PlainSSD(network, size).eval()
    if isinstance(network, FasterRCNN):
        return PlainFasterRCNN(network, size).eval()
    raise CompileError(
        f"There is no plain form of a {type(network).__name__}.",
        fix="Use torchvision's RetinaNet, SSD or FasterRCNN.",
    )

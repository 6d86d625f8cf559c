"""What is measured: a network bare, defended, or behind a filter, and detectors that only score.

Two forms of one network are behind them: a built bundle through its runner, or the PyTorch reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zmask_export.defense.zmask import ZMask
from zmask_export.models.bare import BareNetwork
from zmask_export.runtime.detections import Detections
from zmask_export.runtime.protected import NEVER, Protected
from zmask_export.spec import DETECTION_OUTPUTS

Image = NDArray[np.float32]
"""One image, (1, 3, H, W), RGB in [0, 1]."""
Inside = NDArray[np.bool_]
"""Where the patch lies, (H, W)."""
Filter = Callable[[Image, Inside], Image]
"""What is done to an image before the network sees it."""


@dataclass(frozen=True)
class Outcome:
    """What a subject says of one image.

    Attributes:
        prediction: class indices, uint8 (H, W); None where pixels get no class.
        kept: True where the defense kept the image, bool (H, W); None where nothing is masked.
        scores: over-activation scores, by what gives them.
        detections: found objects; None where none are looked for.
    """

    prediction: NDArray[np.uint8] | None = None
    kept: NDArray[np.bool_] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    detections: Detections | None = None


Subject = Callable[[Image, Inside], Outcome]
"""Measured on one image after the other; only the oracle looks at where the patch is."""


class Network(Protocol):
    """A protected network that can also be run bare.

    Attributes:
        threshold: lambda0.
        colour: RGB of covered pixels.
    """

    threshold: float
    colour: tuple[float, float, float]

    def bare(self, image: Image) -> Outcome:
        """Prediction or detections without the defense."""
        ...

    def defended(self, image: Image) -> Outcome:
        """The same with the defense, mask and the score ``zmask``."""
        ...


class EngineNetwork:
    """A bundle through its runner; see :class:`Network`."""

    def __init__(self, engine: Protected) -> None:
        manifest = engine.manifest
        self._engine = engine
        self.threshold = manifest.threshold
        self.colour = manifest.preprocess.colour(manifest.fill)

    def bare(self, image: Image) -> Outcome:
        result = self._engine.run(image, threshold=NEVER)[0]
        return Outcome(result.prediction, detections=result.detections)

    def defended(self, image: Image) -> Outcome:
        result = self._engine.run(image)[0]
        scores = {"zmask": result.score}
        return Outcome(result.prediction, result.mask, scores, result.detections)


class ReferenceNetwork:
    """The PyTorch reference; see :class:`Network`."""

    def __init__(self, zmask: ZMask) -> None:
        self._zmask = zmask
        self.threshold = float(zmask.get_buffer("threshold"))
        self.colour = zmask.bare.preprocess.colour(zmask.fill)

    def bare(self, image: Image) -> Outcome:
        with torch.inference_mode():
            outputs = self._zmask.bare.predict(torch.from_numpy(image))
        return Outcome(_classes(outputs), detections=_objects(outputs))

    def defended(self, image: Image) -> Outcome:
        with torch.inference_mode():
            result = self._zmask(torch.from_numpy(image))
        kept = result["mask"][0, 0].numpy() > 0.5
        scores = {"zmask": float(result["score"][0])}
        return Outcome(_classes(result), kept, scores, _objects(result))


def undefended(network: Network) -> Subject:
    """The bare network."""
    return lambda image, inside: network.bare(image)


def defended(network: Network) -> Subject:
    """The network with Z-Mask."""
    return lambda image, inside: network.defended(image)


def filtered(network: Network, function: Filter) -> Subject:
    """The bare network on what ``function`` leaves of the image."""
    return lambda image, inside: network.bare(function(image, inside))


def oracle(network: Network) -> Subject:
    """The bare network with the exact patch covered in the defense's colour."""
    colour = np.array(network.colour, np.float32)[None, :, None, None]
    return filtered(
        network,
        lambda image, inside: np.where(inside[None, None], colour, image).astype(np.float32),
    )


def module_filter(function: Callable[[Tensor], Tensor]) -> Filter:
    """A filter of float32 tensors (N, 3, H, W), such as LGS or MaskNet, as a :data:`Filter`."""

    def run(image: Image, inside: Inside) -> Image:
        with torch.inference_mode():
            return function(torch.from_numpy(image)).numpy()

    return run


def detectors(bare: BareNetwork, tap: str, scorers: Mapping[str, nn.Module]) -> Subject:
    """Detectors that score the activation of one tap.

    Args:
        bare: the network with that tap.
        tap: its name.
        scorers: name to a module from features (N, C, h, w) to scores (N,).
    """

    def run(image: Image, inside: Inside) -> Outcome:
        with torch.inference_mode():
            _, features = bare(torch.from_numpy(image))
            scores = {name: float(s(features[tap])[0]) for name, s in scorers.items()}
        return Outcome(scores=scores)

    return run


def _classes(outputs: Mapping[str, Tensor]) -> NDArray[np.uint8] | None:
    if "logits" not in outputs:
        return None
    return outputs["logits"][0].argmax(dim=0).to(torch.uint8).numpy()


def _objects(outputs: Mapping[str, Tensor]) -> Detections | None:
    if "boxes" not in outputs:
        return None
    return Detections.of({name: outputs[name][0].numpy() for name in DETECTION_OUTPUTS})

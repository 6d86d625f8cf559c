"""One pass over clean images for both rival detectors: mean and deviation of every position of a layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Size, Tensor

from zmask_export.calibrate.moments import Moments
from zmask_export.calibrate.statistics import measure
from zmask_export.data.images import ImageSource
from zmask_export.defense.baselines.fpda import Fpda, compress
from zmask_export.defense.baselines.hyperneuron import HyperNeuron
from zmask_export.errors import ImageError, UsageError
from zmask_export.models.bare import BareNetwork

_COMPRESSED = "channel mean"


class MeasuredRivals(NamedTuple):
    """Both detectors, and what they were measured on.

    Attributes:
        hyperneuron: HN.
        fpda: FPDA.
        images: how many images were measured.
        dataset_sha256: fingerprint of them.
    """

    hyperneuron: HyperNeuron
    fpda: Fpda
    images: int
    dataset_sha256: str


class _Positions(BareNetwork):
    """A network that shows each position of one layer, and of its channel mean, as a channel of its own."""

    def __init__(self, bare: BareNetwork, tap: str) -> None:
        super().__init__(bare.network, bare.preprocess, {tap: bare.paths[tap]}, bare.outputs)
        self.bare = bare
        self.tap = tap

    def forward(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        outputs, features = self.bare(image)
        h = features[self.tap]
        maps = {self.tap: h, _COMPRESSED: compress(h)}
        return outputs, {name: x.flatten(1)[:, :, None, None] for name, x in maps.items()}


def measure_rivals(
    bare: BareNetwork,
    source: ImageSource,
    tap: str,
    *,
    positive: bool = False,
    batch: int = 4,
    checkpoint: Path | None = None,
    identity: str = "",
    on_image: Callable[[int], None] | None = None,
    on_skip: Callable[[ImageError], None] | None = None,
) -> MeasuredRivals:
    """HN and FPDA at one layer, from clean images.

    Streams like :func:`zmask_export.calibrate.statistics.measure`, with the same checkpoints: a pass that
    was interrupted goes on to the same last bit.

    Args:
        bare: the network, with at least this tap.
        source: clean images.
        tap: the layer; the paper takes the deepest of D.
        positive: let FPDA count over-activation only.
        batch: images a forward pass.
        checkpoint: where to keep progress; None keeps none.
        identity: what the checkpoint must belong to.
        on_image: told the number of files consumed so far.
        on_skip: told why a bad file was left out.

    Raises:
        UsageError: the network does not read this tap.
        DatasetError: not a single image could be used.
        ImageError: a bad image, unless the source skips them.
        WeightsError: the layer gives values that are not finite.
    """
    if tap not in bare.paths:
        raise UsageError(
            f"The network does not read the tap {tap!r}.",
            fix=f"Choose one of: {', '.join(bare.paths)}.",
        )
    # A pass that only resumes may see no image at all, so the layer's shape is asked for here.
    with torch.inference_mode():
        shape = bare(torch.zeros(1, 3, *source.size))[1][tap].shape[1:]
    progress = measure(
        _Positions(bare, tap),
        source,
        batch=batch,
        checkpoint=checkpoint,
        identity=f"rivals {tap} {identity}",
        on_image=on_image,
        on_skip=on_skip,
    )
    neurons, positions = progress.moments[tap], progress.moments[_COMPRESSED]
    return MeasuredRivals(
        HyperNeuron(*_statistics(neurons, shape)),
        Fpda(*_statistics(positions, shape[1:]), positive=positive),
        progress.images,
        progress.digest,
    )


def _statistics(moments: Moments, shape: Size) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as float32 maps."""
    mean, std = (torch.from_numpy(x).float().reshape(shape) for x in (moments.mean, moments.std()))
    return mean, std

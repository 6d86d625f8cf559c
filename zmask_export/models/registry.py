"""The networks that come with the package: one entry each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zmask_export.errors import UsageError
from zmask_export.models import icnet
from zmask_export.spec import PREPROCESS, Preprocess


@dataclass(frozen=True)
class ModelEntry:
    """A registered network.

    Attributes:
        name: what ``--model`` takes.
        factory: builds the network with random weights for a number of classes.
        classes: number of classes of the shipped demo weights.
        preprocess: normalisation of the shipped demo weights.
        taps: tap name (Table 1) to module path.
        shallow: Table 1's set S.
        deep: Table 1's set D.
        min_side: smallest input side in pixels.
        classes_from: key of the weight whose first dimension is the number of classes.
        unused: prefixes of keys that public checkpoints carry and the network never uses.
    """

    name: str
    factory: Callable[[int], nn.Module]
    classes: int
    preprocess: Preprocess
    taps: dict[str, str]
    shallow: tuple[str, ...]
    deep: tuple[str, ...]
    min_side: int
    classes_from: str
    unused: tuple[str, ...] = ()

    def build(self, classes: int | None = None) -> nn.Module:
        """The network with random weights."""
        return self.factory(self.classes if classes is None else classes)


_ICNET_TAPS = ("convbnrelu1_2", "res_block2", "res_block5", "conv5_4_k1")

_ENTRIES = {
    "icnet": ModelEntry(
        name="icnet",
        factory=icnet.ICNet,
        classes=11,
        preprocess=PREPROCESS["imagenet"],
        taps={name: name for name in _ICNET_TAPS},
        shallow=("res_block5", "convbnrelu1_2", "res_block2"),
        deep=("res_block5", "conv5_4_k1", "convbnrelu1_2"),
        min_side=icnet.MIN_SIDE,
        classes_from="classification.weight",
        # The port stores pyramid-pooling convolutions that ICNet, unlike PSPNet, never calls.
        unused=("pyramid_pooling.path_module_list.",),
    ),
}


def names() -> list[str]:
    """Names of all registered networks, sorted."""
    return sorted(_ENTRIES)


def get(name: str) -> ModelEntry:
    """The entry of a network.

    Raises:
        UsageError: no such network.
    """
    try:
        return _ENTRIES[name]
    except KeyError as exc:
        raise UsageError(
            f"There is no network called {name!r}.", fix=f"Choose one of: {', '.join(names())}."
        ) from exc


def normalise(image: Tensor, preprocess: Preprocess) -> Tensor:
    """(x - mean) / std per channel, after swapping to BGR where the network wants it.

    Args:
        image: float (N, 3, H, W), RGB in [0, 1].
        preprocess: what the network was trained with.
    """
    if preprocess.bgr:
        image = image.flip(1)
    mean = torch.tensor(preprocess.mean, dtype=image.dtype, device=image.device)
    std = torch.tensor(preprocess.std, dtype=image.dtype, device=image.device)
    return (image - mean[:, None, None]) / std[:, None, None]

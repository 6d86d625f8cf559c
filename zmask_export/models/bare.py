"""The bare network: normalisation inside, taps read out, nothing defended."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zmask_export.errors import UsageError
from zmask_export.models.registry import ModelEntry, normalise
from zmask_export.models.taps import Taps
from zmask_export.spec import Preprocess


class BareNetwork(nn.Module):
    """A network with its normalisation and its taps.

    Args:
        network: the network, in eval mode.
        preprocess: its normalisation.
        paths: tap name to module path, for the taps to read.
        outputs: names of the network's outputs.

    ``forward`` takes images float32 (N, 3, H, W), RGB in [0, 1], and returns the network's outputs
    by name and the tapped activations (N, C, h, w) by tap.

    Raises:
        UsageError: a tapped layer takes no part in the forward pass.
        ShapeError: a tapped layer's output is no map.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        paths: dict[str, str],
        outputs: tuple[str, ...] = ("logits",),
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.preprocess = preprocess
        self.paths = paths
        self.outputs = outputs

    def forward(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with Taps(self.network, self.paths) as taps:
            result = self.predict(image)
        for tap in self.paths:
            if tap not in taps.features:
                raise UsageError(
                    f"The layer of the tap {tap!r} does not run in a forward pass.",
                    fix="Tap a layer that the prediction goes through.",
                )
        return result, {tap: taps.features[tap] for tap in self.paths}

    def with_network(self, network: nn.Module, paths: dict[str, str]) -> BareNetwork:
        """The same around another form of the network, with other taps."""
        return BareNetwork(network, self.preprocess, paths, self.outputs)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """The network's outputs alone."""
        result = self.network(normalise(image, self.preprocess))
        values = result if isinstance(result, tuple) else (result,)
        return dict(zip(self.outputs, values, strict=True))


def tap_paths(entry: ModelEntry, taps: Sequence[str]) -> dict[str, str]:
    """Module paths of taps: Table 1's names first, else any module path of the network.

    Raises:
        UsageError: an empty name.
    """
    if not all(taps):
        raise UsageError("A tap has an empty name.", fix=f"Known taps: {', '.join(entry.taps)}.")
    return {tap: entry.taps.get(tap, tap) for tap in taps}

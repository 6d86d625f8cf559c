"""Taps: reading the output of named layers during a forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import TracebackType

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from zmask_export.errors import ShapeError, UsageError


def resolve(network: nn.Module, paths: Mapping[str, str]) -> dict[str, nn.Module]:
    """The module behind every tap.

    Args:
        network: where to look.
        paths: tap name to dotted module path.

    Raises:
        UsageError: a path names no module; the nearest names are listed.
    """
    known = dict(network.named_modules())
    found = {}
    for tap, path in paths.items():
        if path not in known or not path:
            near = difflib.get_close_matches(
                path, [name for name in known if name], n=4, cutoff=0.4
            )
            raise UsageError(
                f"The network has no layer called {path!r} (tap {tap!r}).",
                fix=f"Near names: {', '.join(near)}."
                if near
                else "List them with named_modules().",
            )
        found[tap] = known[path]
    return found


class Taps:
    """Records the outputs of tapped layers while it is open.

        with Taps(network, {"res_block5": "res_block5"}) as taps:
            logits = network(x)
            h = taps.features["res_block5"]      # (N, C, h, w)

    Args:
        network: the network; it is not changed.
        paths: tap name to dotted module path.

    Raises:
        UsageError: a path names no module.
        ShapeError: a tapped layer's output is no (N, C, H, W) tensor.
    """

    def __init__(self, network: nn.Module, paths: Mapping[str, str]) -> None:
        self._modules = resolve(network, paths)
        self._handles: list[RemovableHandle] = []
        self.features: dict[str, Tensor] = {}

    def __enter__(self) -> Taps:
        self.features.clear()
        for tap, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._recorder(tap)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _recorder(self, tap: str):  # type: ignore[no-untyped-def]
        def record(module: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor) or output.ndim != 4:
                got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ShapeError(
                    f"The tap {tap!r} gives {got}, not a map (N, C, H, W).",
                    fix="Tap a convolutional layer.",
                )
            self.features[tap] = output

        return record

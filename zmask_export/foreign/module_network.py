"""A user's ``nn.Module`` as a bare network."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zmask_export.errors import NetworkError, UsageError, ZMaskError, shortage
from zmask_export.foreign import outputs as named_outputs
from zmask_export.foreign.factory import where
from zmask_export.foreign.suggest import Shape, require_known, require_map
from zmask_export.models.bare import BareNetwork
from zmask_export.models.registry import normalise
from zmask_export.spec import Preprocess, Size

PROBE_BATCH = 2
"""Images that a network is tried on: a result that mixes them would show."""


class ModuleNetwork(BareNetwork):
    """See BareNetwork; the network may return a tensor, a tuple or a dictionary.

    Args:
        network: the user's, in eval mode.
        preprocess: its normalisation.
        paths: tap name to module path.
        named: output name to source, see ``foreign.outputs``.
        label: what messages call the network.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        paths: dict[str, str],
        named: dict[str, str],
        label: str,
    ) -> None:
        super().__init__(network, preprocess, paths, tuple(named))
        self.named = named
        self.label = label

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """The network's outputs alone.

        Raises:
            NetworkError: the user's forward pass fails, or returns something else than before.
        """
        values = run_module(self.network, normalise(image, self.preprocess), self.label)
        return {name: values[source] for name, source in self.named.items()}

    def with_network(self, network: nn.Module, paths: dict[str, str]) -> BareNetwork:
        """The same around another form of the network."""
        return ModuleNetwork(network, self.preprocess, paths, self.named, self.label)


@dataclass(frozen=True)
class Seen:
    """What a network did with a batch of ``PROBE_BATCH``.

    Attributes:
        values: its outputs by source.
        calls: module path to how often it ran.
        got: module path to what it gave in the end, in words.
        shapes: module path to the shape of the tensor that it gave.
        maps: module path to (C, h, w), for those that gave one map, in the order of the forward pass; the
            network's outputs are none.
    """

    values: dict[str, Tensor]
    calls: dict[str, int]
    got: dict[str, str]
    shapes: dict[str, Shape]
    maps: dict[str, Shape]


def run_module(network: nn.Module, shown: Tensor, label: str) -> dict[str, Tensor]:
    """A forward pass of the user's code; outputs by source.

    Raises:
        NetworkError: it fails, or returns no tensors.
    """
    if torch.compiler.is_exporting():
        # The exporter's own errors say more than that tracing failed.
        return named_outputs.flatten(network(shown), label)
    try:
        # What the user's code prints is no result of ours.
        with contextlib.redirect_stdout(sys.stderr):
            result = network(shown)
    except ZMaskError:
        raise
    except Exception as exc:
        if shortage(exc) is not None:
            raise
        place = where(exc)
        said = " ".join(str(exc).split())[:200]
        raise NetworkError(
            f"The forward pass of {label} fails on {tuple(shown.shape)} ({type(exc).__name__}: {said}"
            f"{f'; {place}' if place else ''}).",
            fix="Make it take float32 (N, 3, H, W) of any N; --input-size sets H and W.",
        ) from exc
    return named_outputs.flatten(result, label)


def observe(network: nn.Module, preprocess: Preprocess, size: Size, label: str) -> Seen:
    """Run a network once on noise and look at every layer.

    Raises:
        NetworkError: the forward pass fails.
    """
    calls: dict[str, int] = {}
    got: dict[str, str] = {}
    maps: dict[str, Shape] = {}
    given: dict[str, Tensor] = {}

    def recorder(path: str):  # type: ignore[no-untyped-def]
        def record(module: nn.Module, inputs: object, output: object) -> None:
            calls[path] = calls.get(path, 0) + 1
            maps.pop(path, None)
            got[path] = type(output).__name__
            if isinstance(output, Tensor):
                given[path] = output
                got[path] = str(tuple(output.shape))
                if output.ndim == 4 and calls[path] == 1:
                    maps[path] = tuple(output.shape[1:])

        return record

    handles = [
        module.register_forward_hook(recorder(path))
        for path, module in network.named_modules()
        if path
    ]
    image = torch.rand(PROBE_BATCH, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            values = run_module(network, normalise(image, preprocess), label)
    finally:
        for handle in handles:
            handle.remove()
    shapes: dict[str, Shape] = {path: tuple(value.shape) for path, value in given.items()}
    last = {id(value) for value in values.values()}
    inner = {path: shape for path, shape in maps.items() if id(given[path]) not in last}
    return Seen(values, calls, got, shapes, inner)


def check_taps(network: nn.Module, taps: Iterable[str], seen: Seen) -> None:
    """Refuse taps that statistics cannot be taken of.

    Raises:
        UsageError: no such layer, or one that does not run, or runs more than once.
        ShapeError: its output is no map.
    """
    known = [path for path, _ in network.named_modules()]
    for tap in taps:
        require_known(tap, known, seen.maps, "layer")
        count = seen.calls.get(tap, 0)
        if count != 1:
            times = "does not run" if not count else f"runs {count} times"
            raise UsageError(
                f"The layer {tap!r} {times} in a forward pass.",
                fix="Tap a layer that runs once: one behind it, or the block around it.",
            )
        require_map(tap, seen.shapes.get(tap), seen.got[tap])

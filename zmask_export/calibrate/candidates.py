"""Which layers of a network are worth looking at as taps: its stages, by module path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from zmask_export.errors import UsageError
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import Size

MOST = 16
"""Candidates by default: each costs two cascades an image."""
MIN_SIDE = 4
"""A map with a shorter side says nothing about places."""

Shape = tuple[int, int, int]


def find_candidates(
    bare: BareNetwork, size: Size, *, keep: Sequence[str] = (), most: int = MOST
) -> dict[str, Shape]:
    """Stages whose output is a map, found in one forward pass.

    A stage is a module that holds others, or a convolution that no such module with a map holds. It
    runs once in a forward pass and gives one map with sides of at least ``MIN_SIDE`` that is not the
    network's output. Of nested stages with the same output the outermost counts.

    Where there are more than ``most``, every resolution gets the same number of places as far as it
    has stages, and fills them evenly over the network's depth, its deepest stage included.

    Args:
        bare: the network.
        size: input (H, W).
        keep: module paths that are candidates in any case.
        most: at most this many, ``keep`` counted.

    Returns:
        Module path to (C, h, w), in the order of the forward pass.

    Raises:
        UsageError: no layer gives a map.
    """
    groups, shapes = _stages(bare, size)
    outer = {path for path in shapes if not _is_convolution(bare.network, path)}
    stages = []
    for group in groups:
        path = next((path for path in group if path in keep), group[-1])
        stage = path in outer or not _parents(path) & outer
        if path in keep or (stage and min(shapes[path][1:]) >= MIN_SIDE):
            stages.append(path)
    if not stages:
        raise UsageError(
            "No layer of the network gives a map to look at.",
            fix="Name layers with --candidates, or give a larger --input-size.",
        )
    kept = [path for path in stages if path in keep]
    by_size: dict[tuple[int, int], list[str]] = {}
    for path in stages:
        if path not in keep:
            by_size.setdefault(shapes[path][1:], []).append(path)
    chosen = {*kept, *_spread(list(by_size.values()), most - len(kept))}
    return {path: shapes[path] for path in stages if path in chosen}


def _stages(bare: BareNetwork, size: Size) -> tuple[list[list[str]], dict[str, Shape]]:
    """Paths grouped by common output, inner ones first, in forward order; and their shapes."""
    groups: list[list[str]] = []
    shapes: dict[str, Shape] = {}
    calls: Counter[str] = Counter()
    last: list[Tensor] = []

    def recorder(path: str):  # type: ignore[no-untyped-def]
        def record(module: nn.Module, inputs: object, output: object) -> None:
            calls[path] += 1
            if not isinstance(output, Tensor) or output.ndim != 4:
                return
            if last and output is last[0]:
                groups[-1].append(path)
            else:
                groups.append([path])
            last[:] = [output]
            shapes[path] = (output.shape[1], output.shape[2], output.shape[3])

        return record

    handles = [
        module.register_forward_hook(recorder(path))
        for path, module in bare.network.named_modules()
        if path and (any(True for _ in module.children()) or _is_convolution(bare.network, path))
    ]
    try:
        with torch.inference_mode():
            results = bare.predict(torch.full((1, 3, *size), 0.5))
    finally:
        for handle in handles:
            handle.remove()
    if last and any(last[0] is result for result in results.values()):
        groups.pop()
    once = ([path for path in group if calls[path] == 1] for group in groups)
    return [group for group in once if group], shapes


def _is_convolution(network: nn.Module, path: str) -> bool:
    return isinstance(network.get_submodule(path), (nn.Conv2d, nn.ConvTranspose2d))


def _parents(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def _spread(groups: list[list[str]], most: int) -> list[str]:
    quotas = [0] * len(groups)
    while sum(quotas) < min(most, sum(map(len, groups))):
        for index, group in enumerate(groups):
            if quotas[index] < len(group) and sum(quotas) < most:
                quotas[index] += 1
    picked = []
    for group, quota in zip(groups, quotas, strict=True):
        places = np.linspace(len(group) - 1, 0, quota).round().astype(int)
        picked += [group[place] for place in places]
    return picked

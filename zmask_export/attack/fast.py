"""Copies of networks that are faster to differentiate; only crafting uses them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zmask_export.models.folding import fold_batch_norms
from zmask_export.models.taps import resolve


def fast_copy(network: nn.Module, paths: Mapping[str, str]) -> nn.Module:
    """The same network in eval mode, channels last, with its batch norms folded where no tap forbids it.

    Args:
        network: it is not changed; the copy's parameters take no gradient.
        paths: tap name to module path, for the taps that will be read.
    """
    # Folded, a convolution gives what its batch norm gave: not what its statistics were taken of.
    if any(isinstance(module, nn.Conv2d) for module in resolve(network, paths).values()):
        copied = copy.deepcopy(network).requires_grad_(False)
    else:
        copied = fold_batch_norms(network)
    return copied.to(memory_format=torch.channels_last)


def run_in_bfloat16(network: nn.Module, parts: Iterable[str]) -> None:
    """Let parts of a network run under autocast, and give float32.

    Args:
        network: a copy of one's own; it is changed.
        parts: module paths; those that the network lacks do not count.
    """
    known = dict(network.named_modules())
    for part in parts:
        if part in known:
            _autocast(known[part])


def _autocast(module: nn.Module) -> None:
    forward = module.forward

    def half(*inputs: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = forward(*inputs)
        return _float32(result)

    # On the instance, so that module paths, and with them the taps, stay what they are.
    module.forward = half


def _float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, Mapping):
        return type(value)((key, _float32(part)) for key, part in value.items())  # type: ignore[call-arg]
    return type(value)(_float32(part) for part in value)

"""Which engines a build shall compile."""

from __future__ import annotations

from typing import Literal

from zmask_export.backends import tensorrt
from zmask_export.backends.tensorrt import Flavour

Target = Literal["auto", "onnx", "tensorrt", "tensorrt-rtx"]


def flavours(target: Target) -> tuple[list[Flavour], list[str]]:
    """Flavours to compile, and notes on those that ``auto`` leaves out.

    Raises:
        BackendUnavailableError: a flavour was asked for by name and cannot build here.
    """
    if target == "onnx":
        return [], []
    if target != "auto":
        tensorrt.require(target)
        return [target], []
    chosen: list[Flavour] = []
    notes = []
    candidates: tuple[Flavour, ...] = ("tensorrt-rtx", "tensorrt")
    for flavour in candidates:
        reason = tensorrt.available(flavour)
        if reason is None:
            chosen.append(flavour)
        else:
            notes.append(f"no {flavour} engine: {reason}")
    return chosen, notes

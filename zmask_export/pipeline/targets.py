"""Which engines a build shall compile."""

from __future__ import annotations

from typing import Literal

from zmask_export.backends import tensorrt
from zmask_export.backends.tensorrt import Flavour
from zmask_export.errors import UsageError

Target = Literal["auto", "onnx", "tensorrt", "tensorrt-rtx"]


def flavours(target: Target, capabilities: tuple[str, ...] = ()) -> tuple[list[Flavour], list[str]]:
    """Flavours to compile, and notes on those that ``auto`` leaves out.

    Raises:
        BackendUnavailableError: a flavour was asked for by name and cannot build here.
        UsageError: ``capabilities`` are unknown, or nothing is compiled that takes them.
    """
    chosen, notes = _flavours(target)
    if capabilities and "tensorrt-rtx" not in chosen:
        raise UsageError(
            "Compute capabilities can be chosen for tensorrt-rtx only.",
            fix="Leave out --compute-capability, or choose --target tensorrt-rtx.",
        )
    known = tensorrt.supported_capabilities() if capabilities else []
    for text in capabilities:
        if text not in known:
            raise UsageError(
                f"tensorrt-rtx does not compile for compute capability {text}.",
                fix=f"Choose among {', '.join(known)}.",
            )
    return chosen, notes


def _flavours(target: Target) -> tuple[list[Flavour], list[str]]:
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

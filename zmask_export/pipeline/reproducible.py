"""build --reproducible: bytes that depend on the inputs alone, and a refusal of what cannot have such."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from zmask_export.backends.onnx_runtime import Device
from zmask_export.backends.tensorrt import Flavour
from zmask_export.errors import UsageError


def require_reproducible(chosen: Sequence[Flavour], max_batch: int) -> None:
    """Refuse engines that two builds do not make equal.

    Args:
        chosen: flavours to compile.
        max_batch: largest batch of the engines.

    Raises:
        UsageError: there are such.
    """
    if "tensorrt" in chosen:
        raise UsageError(
            "TensorRT chooses kernels by timing them, so two of its engines differ.",
            fix="Give --target tensorrt-rtx or onnx, or leave out --reproducible.",
        )
    if chosen and max_batch > 1:
        raise UsageError(
            "An engine for a range of batches holds marks of the compiler's threads.",
            fix="Leave out --max-batch, give a fixed --batch, or leave out --reproducible.",
        )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, so that no sum depends on how many a machine or its settings give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measured_on(reproducible: bool) -> tuple[Device, int]:
    """Device and threads of the runner that a build is verified with, whose figures parity.json holds."""
    return ("cpu", 1) if reproducible else ("auto", 0)

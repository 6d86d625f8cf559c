"""What a build asks of its precision before it starts, and the images that int8 takes its ranges from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zmask_export.attack import patch as patches
from zmask_export.backends.tensorrt import Flavour
from zmask_export.data.images import OnBad, to_float
from zmask_export.errors import UsageError
from zmask_export.pipeline.network import OpenNetwork
from zmask_export.pipeline.probe import noise_patch, source_of, with_patch
from zmask_export.pipeline.progress import Reporter
from zmask_export.spec import Precision

RANGE_IMAGES = 100
"""Most images that the ranges of int8 are taken from."""
RANGE_SCENES = 32
"""Drawn scenes in their place."""
SEED = 7
"""Of the patch's places."""


def require_possible(
    precision: Precision,
    opened: OpenNetwork,
    engines: Sequence[Flavour],
    images: Path | None,
    *,
    random_weights: bool,
    reporter: Reporter,
) -> None:
    """Refuse a precision that cannot come out right, before the work for it starts.

    Raises:
        UsageError: the preset has no tolerances for it; tf32 without an engine; int8 of the user's own
            weights without images.
    """
    opened.preset.contract(precision)
    if precision == "tf32" and not engines:
        raise UsageError(
            "tf32 is how an engine multiplies, and none is compiled.",
            fix="Leave out --precision, or choose an engine with --target.",
        )
    if precision != "int8" or images is not None:
        return
    if opened.shipped.weights is None and not random_weights:
        raise UsageError(
            "int8 needs images of the camera, to see how large activations get.",
            fix="Give clean ones with --images; --calibration may be given too.",
        )
    reporter.note(f"int8: ranges of {RANGE_SCENES} drawn scenes; --images takes those of your own")


def range_patch(opened: OpenNetwork, given: Sequence[Path]) -> Tensor | None:
    """The patch that the ranges of int8 are taken under; None where there is none but to evaluate with.

    It is never the one that the shipped network is evaluated with: what is measured under a patch that
    ranges were made for is no blind measurement.

    Args:
        opened: the network.
        given: the user's own patches, of which the first is taken.
    """
    path = given[0] if given else opened.shipped.fit_patch
    if path is not None:
        return patches.load(path)
    return None if opened.shipped.patch is not None else noise_patch(opened.input_size)


def range_images(
    opened: OpenNetwork, folder: Path | None, patch: Tensor | None, batch: int | None, on_bad: OnBad
) -> Iterator[NDArray[np.float32]]:
    """Images for the ranges of int8, clean and patched in turn, float32 (batch or 1, 3, H, W).

    Ranges of clean images alone would cut off what an adversarial object excites beyond them, which is
    what the defense sees it by.

    Args:
        opened: the network.
        folder: of clean images; drawn scenes where None. Each is read when it is asked for.
        patch: (3, h, w) in [0, 1]; None gives clean images alone.
        batch: fixed batch of the graph.
        on_bad: what to do with images that are no 8-bit RGB.
    """
    count = RANGE_IMAGES if folder is not None else RANGE_SCENES
    frames = source_of(folder, opened.input_size, count=count, on_bad=on_bad).frames()
    for index, frame in enumerate(frames):
        if frame is None:
            continue
        images = [frame.image]
        if patch is not None:
            images.append(with_patch(frame.image, patch, np.random.default_rng((SEED, index))))
        for image in images:
            yield to_float([image] * (batch or 1))

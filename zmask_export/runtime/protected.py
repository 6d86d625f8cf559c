"""Running a built bundle: images in, named results out. Imports neither torch nor torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from zmask_export.artifacts.manifest import Manifest, read_manifest
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.runner import Arrays, Runner
from zmask_export.data import images
from zmask_export.errors import BundleError, ShapeError, UsageError
from zmask_export.runtime.detections import Detections

ONNX_FILE = "protected.onnx"
NEVER = 1e30
"""A threshold that no score reaches: an engine that covers on a flag then behaves as the bare network."""


@dataclass(frozen=True)
class Result:
    """What a protected engine says of one image.

    Attributes:
        prediction: class index of every pixel, uint8 (H, W); None of a detector.
        detections: what a detector found; None of other networks.
        mask: True where the image was kept, False where it is covered, bool (H, W).
        flag: whether an adversarial object was found.
        score: over-activation d.
        threshold: the threshold that d was compared with.
        soft_mask: M~, float32 (HR, WR) in (0, 1).
        heatmap_shallow, heatmap_deep: HS and HD, float32 (HR, WR).
        outputs: every output of the engine for this image, batch dimension removed.
    """

    prediction: NDArray[np.uint8] | None
    detections: Detections | None
    mask: NDArray[np.bool_]
    flag: bool
    score: float
    threshold: float
    soft_mask: NDArray[np.float32]
    heatmap_shallow: NDArray[np.float32]
    heatmap_deep: NDArray[np.float32]
    outputs: Arrays


class Protected:
    """A loaded bundle. Call it with an image, or with a batch.

    Args:
        manifest: the checked manifest.
        runner: what runs the graph.
    """

    def __init__(self, manifest: Manifest, runner: Runner) -> None:
        self.manifest = manifest
        self.runner = runner

    @overload
    def __call__(self, image: NDArray[np.uint8], *, threshold: float | None = None) -> Result: ...

    @overload
    def __call__(
        self, image: NDArray[np.float32], *, threshold: float | None = None
    ) -> list[Result]: ...

    def __call__(
        self, image: NDArray[Any], *, threshold: float | None = None
    ) -> Result | list[Result]:
        """Run one image or a batch.

        Args:
            image: uint8 (H, W, 3) RGB of any size (resized by the stated rule), which gives one
                result; or float32 (N, 3, H, W) in [0, 1] of the engine's size, which gives a list.
            threshold: lambda0; the calibrated one where None.

        Raises:
            ShapeError: another shape or dtype, a value that is not finite or outside [0, 1].
            UsageError: a threshold that is no number from 0 on.
            ImageError: an aspect ratio too far from the engine's.
            BackendError: the runner failed.
        """
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            resized = images.resize(image, self.manifest.input_size)
            return self.run(images.to_float([resized]), threshold=threshold)[0]
        return self.run(image, threshold=threshold)

    def run(self, batch: NDArray[Any], *, threshold: float | None = None) -> list[Result]:
        """Run a float batch; see :meth:`__call__`."""
        h, w = self.manifest.input_size
        if batch.ndim != 4 or batch.shape[1:] != (3, h, w) or batch.dtype != np.float32:
            raise ShapeError(
                f"The engine takes float32 (N, 3, {h}, {w}), got {batch.dtype} {batch.shape}.",
                fix="Give an RGB image as uint8 (H, W, 3), or a batch of that shape in [0, 1].",
            )
        # Written so that NaN fails the comparison.
        if not batch.size or not (batch.min() >= 0 and batch.max() <= 1):
            raise ShapeError(
                "The image holds NaN, infinity or values outside [0, 1], or is empty.",
                fix="Scale 8-bit images by 1/255 and check the camera's conversion.",
            )
        limit = self.manifest.threshold if threshold is None else threshold
        if not limit >= 0:
            raise UsageError(
                f"A threshold of {limit} is not possible.", fix="Give a number of at least 0."
            )
        threshold_input = np.array([limit], dtype=np.float32)
        results: list[Result] = []
        for group in self._groups(batch):
            outputs = self.runner.run({"image": group, "threshold": threshold_input})
            results += [self._result(outputs, row, limit) for row in range(len(group))]
        return results[: len(batch)]

    def _groups(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The batch as the graph takes it: whole, or cut to its fixed batch, the last one filled up."""
        fixed = self.manifest.batch
        if fixed is None:
            return [batch]
        short = -len(batch) % fixed
        filled = np.concatenate([batch, np.repeat(batch[-1:], short, axis=0)]) if short else batch
        return np.split(filled, len(filled) // fixed)

    def _result(self, outputs: Arrays, row: int, threshold: float) -> Result:
        own = {name: value[row] for name, value in outputs.items()}
        return Result(
            prediction=own["logits"].argmax(axis=0).astype(np.uint8) if "logits" in own else None,
            detections=Detections.of(own) if "boxes" in own else None,
            mask=own["mask"][0] > 0.5,
            flag=bool(own["flag"]),
            score=float(own["score"]),
            threshold=float(threshold),
            soft_mask=own["soft_mask"][0],
            heatmap_shallow=own["heatmap_shallow"][0],
            heatmap_deep=own["heatmap_deep"][0],
            outputs=own,
        )


def load(bundle: str | Path, *, threads: int = 0) -> Protected:
    """Open a bundle, after checking every file of it against its manifest.

    Args:
        bundle: the folder that ``zmask-export build`` wrote.
        threads: CPU threads of ONNX Runtime; 0 lets it choose.

    Raises:
        BundleError: no bundle, or one that was changed.
        BackendError: the runner refuses the graph.
    """
    folder = Path(bundle)
    manifest = read_manifest(folder)
    if ONNX_FILE not in manifest.files:
        raise BundleError(f"The bundle {folder} has no {ONNX_FILE}.", fix="Build it again.")
    runner = OnnxRuntimeRunner(
        (folder / ONNX_FILE).read_bytes(), threads=threads, precision=manifest.precision
    )
    return Protected(manifest, runner)

"""Running a built bundle: images in, named results out. Imports neither torch nor torchvision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from zmask_export.artifacts.bundle import CheckedBundle, open_bundle
from zmask_export.artifacts.manifest import Manifest
from zmask_export.artifacts.signature import KeySource
from zmask_export.backends.runner import Arrays, DeviceArray, closed
from zmask_export.errors import ShapeError, shortages_named
from zmask_export.runtime.arguments import (
    require_path,
    require_share,
    require_threads,
    require_threshold,
)
from zmask_export.runtime.choice import Backend, Choice, open_runner, runner_files
from zmask_export.runtime.detections import Detections
from zmask_export.runtime.inputs import Prepared, prepare
from zmask_export.spec import Size

NEVER = 1e30
"""A threshold that no score reaches: an engine that covers on a flag then behaves as the bare network."""


@dataclass(frozen=True)
class Result:
    """What a protected engine says of one image.

    Attributes:
        prediction: class index of every pixel, uint8 (H, W); None of a detector.
        detections: what a detector found; None of other networks.
        mask: True where the image was kept, False where it is covered, bool (H, W).
        flag: whether an adversarial object was found, or the score is not a number.
        score: over-activation d; not finite where the network's numbers outgrew their type.
        threshold: the threshold that d was compared with.
        soft_mask: M~, float32 (HR, WR) in (0, 1).
        heatmap_shallow, heatmap_deep: HS and HD, float32 (HR, WR).
        outputs: every output of the engine for this image, batch dimension removed.
        trusted: False where the mask covers more of the image than ``max_covered``: what is left may be
            too little to predict from. Nothing else of the result changes.
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
    trusted: bool = True


class Protected:
    """A loaded bundle. Call it with an image or with several; threads may share it.

    It is a context manager: its end, or :meth:`close`, gives the memory back.

    Args:
        manifest: the checked manifest.
        choice: what runs the graph.
        max_covered: share of an image that a mask may cover before its result is not trusted; None
            trusts every mask.

    Attributes:
        manifest: inputs, outputs, classes, calibrated threshold, versions.
        runner: what runs the graph; ``runner.name`` says what that is.
        passed_over: what ``backend="auto"`` would have preferred, and the reason against it.
        max_covered: as given.
    """

    def __init__(
        self, manifest: Manifest, choice: Choice, *, max_covered: float | None = None
    ) -> None:
        self.manifest = manifest
        self.max_covered = max_covered
        self.runner = choice.runner
        self.passed_over = choice.passed_over
        self._limit = choice.limit
        self._closed = False

    @overload
    def __call__(self, image: Sequence[Any], *, threshold: float | None = None) -> list[Result]: ...

    @overload
    def __call__(self, image: Any, *, threshold: float | None = None) -> Any: ...

    def __call__(self, image: Any, *, threshold: float | None = None) -> Result | list[Result]:
        """Run one image or several.

        Args:
            image: RGB, in one of these forms. One image, which gives one result: uint8 (H, W, 3) of any
                size (resized by the stated rule), or float32 (3, H, W) in [0, 1] of the engine's
                size. Several, which give a list: uint8 (N, H, W, 3), a list of uint8 (H, W, 3) of
                any sizes, or float32 (N, 3, H, W). NumPy arrays, or whatever has ``__dlpack__``;
                float32 that is contiguous on the engine's GPU is read where it lies.
            threshold: lambda0; the calibrated one where None.

        Raises:
            ShapeError: another shape, dtype or device, a value that is not finite or outside [0, 1]
                (on a GPU only what is not finite, by the score that comes back).
            UsageError: a threshold that is no number from 0 on, or the engine is closed.
            ImageError: an aspect ratio too far from the engine's.
            BackendError: the runner failed.
        """
        with shortages_named():
            prepared = self._prepare(image)
            results = self._run(prepared, threshold)
        return results[0] if prepared.single else results

    def run(self, images: Any, *, threshold: float | None = None) -> list[Result]:
        """As a call, but always a list: of one result where one image was given."""
        with shortages_named():
            return self._run(self._prepare(images), threshold)

    def close(self) -> None:
        """Give the memory back. What other threads run at the moment ends well; later use is an error."""
        self._closed = True
        self.runner.close()

    def __enter__(self) -> Protected:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self, image: Any) -> Prepared:
        if self._closed:
            raise closed()
        return prepare(image, self.manifest.input_size)

    def _run(self, prepared: Prepared, threshold: float | None) -> list[Result]:
        limit = self.manifest.threshold if threshold is None else require_threshold(threshold)
        threshold_input = np.array([limit], dtype=np.float32)
        results: list[Result] = []
        for part, count in self._limit.cut(prepared.batch):
            outputs = self.runner.run({"image": part, "threshold": threshold_input})
            # A score that is no number would silently flag nothing.
            if isinstance(part, DeviceArray) and not np.isfinite(outputs["score"]).all():
                raise ShapeError(
                    "The image on the GPU gives a score that is no number.",
                    fix="Look for NaN and infinity in it; values lie in [0, 1].",
                )
            results += [self._result(outputs, row, limit) for row in range(count)]
        return results

    def _result(self, outputs: Arrays, row: int, threshold: float) -> Result:
        own = {name: value[row] for name, value in outputs.items()}
        mask = own["mask"][0] > 0.5
        return Result(
            prediction=_prediction(own["logits"], self.manifest.input_size)
            if "logits" in own
            else None,
            detections=Detections.of(own) if "boxes" in own else None,
            mask=mask,
            flag=bool(own["flag"]),
            score=float(own["score"]),
            threshold=float(threshold),
            soft_mask=own["soft_mask"][0],
            heatmap_shallow=own["heatmap_shallow"][0],
            heatmap_deep=own["heatmap_deep"][0],
            outputs=own,
            trusted=self.max_covered is None or float((~mask).mean()) <= self.max_covered,
        )


def _prediction(logits: NDArray[np.float32], size: Size) -> NDArray[np.uint8]:
    """Class of every pixel (H, W); logits of another size are looked up at the nearest cell."""
    classes = logits.argmax(axis=0).astype(np.uint8)
    if classes.shape == size:
        return classes
    rows, columns = (
        (np.arange(side) * cells // side) for side, cells in zip(size, classes.shape, strict=True)
    )
    return classes[rows[:, None], columns]


def load(
    bundle: str | Path,
    *,
    backend: Backend = "auto",
    threads: int = 0,
    verify_key: KeySource | None = None,
    max_covered: float | None = None,
) -> Protected:
    """Open a bundle, after checking every file of it against its manifest.

    The bytes that a runtime gets are the very ones that were checked.

    Args:
        bundle: the folder that ``zmask-export build`` wrote.
        backend: what runs it. ``auto`` takes the bundle's TensorRT or TensorRT-RTX engine where this
            machine's GPU and packages can run it, else ONNX Runtime, there on CUDA where it can.
            ``onnxruntime`` is that without the engines, ``onnxruntime-cpu`` and ``onnxruntime-cuda`` say
            where; ``tensorrt`` and ``tensorrt-rtx`` take that engine or nothing.
        threads: CPU threads of ONNX Runtime; 0 lets it choose, within the cores that this process may
            use.
        verify_key: public key that the bundle must be signed with: the path of a PEM file, its bytes, or
            the key's 32 bytes. The signature is checked before anything in the bundle is parsed. None
            takes signed and unsigned bundles.
        max_covered: share of an image, in [0, 1], that a mask may cover; a result whose mask covers more
            has ``trusted`` False. None trusts every mask.

    Raises:
        BundleError: no bundle, one that was changed, or not signed with the key.
        InputError: ``verify_key`` is no such key.
        UsageError: what is no path, no number of threads, no share in [0, 1], or an unknown backend.
        BackendUnavailableError: the backend that was asked for, or what checks signatures, is not here.
        BackendError: the runner refuses the graph.
    """
    return load_checked(
        bundle, backend=backend, threads=threads, verify_key=verify_key, max_covered=max_covered
    )[0]


@shortages_named()
def load_checked(
    bundle: str | Path,
    *,
    also: Iterable[str] = (),
    backend: Backend = "auto",
    threads: int = 0,
    verify_key: KeySource | None = None,
    max_covered: float | None = None,
) -> tuple[Protected, CheckedBundle]:
    """:func:`load`, and the files of the bundle that it was loaded from.

    Args:
        bundle, backend, threads, verify_key, max_covered: as in :func:`load`.
        also: files whose bytes are wanted beside those that run.
    """
    share = None if max_covered is None else require_share(max_covered)
    most = require_threads(threads)
    key = (
        verify_key
        if verify_key is None or isinstance(verify_key, bytes)
        else require_path(verify_key)
    )
    names = tuple(also)
    checked = open_bundle(
        require_path(bundle),
        lambda manifest: (*runner_files(manifest, backend), *names),
        verify_key=key,
    )
    choice = open_runner(checked, backend, threads=most)
    return Protected(checked.manifest, choice, max_covered=share), checked

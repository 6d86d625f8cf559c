"""A user's ONNX file as a bare network: ONNX Runtime runs the file as it is.

What calibration, fit and reference see of the network is what the unchanged graph gives, taps read out
as extra outputs. No rewrite of ours stands between, so a fault of one cannot hide.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.runner import Arrays
from zmask_export.errors import BackendError, NetworkError, UsageError
from zmask_export.foreign.onnx_file import OnnxFile
from zmask_export.foreign.suggest import Shape, require_known, require_map
from zmask_export.models.bare import BareNetwork
from zmask_export.models.registry import normalise
from zmask_export.spec import Preprocess, Size


class OnnxNetwork(BareNetwork):
    """See BareNetwork; taps are tensor names, and nothing can be differentiated.

    Args:
        file: the user's graph.
        preprocess: the normalisation in front of it.
        paths: tap name to tensor name.
        named: output name to the graph's own name for it.
        batch: images a run where the graph takes only so many, or None.
    """

    def __init__(
        self,
        file: OnnxFile,
        preprocess: Preprocess,
        paths: dict[str, str],
        named: dict[str, str],
        batch: int | None,
    ) -> None:
        # There is no module: whoever looks for layers finds none.
        super().__init__(nn.Identity(), preprocess, paths, tuple(named))
        self.file = file
        self.named = named
        self.batch = batch

    def forward(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        found = self._run(self._tapped, image)
        outputs = {name: found[source] for name, source in self.named.items()}
        return outputs, {tap: found[tensor] for tap, tensor in self.paths.items()}

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """The outputs alone, by the file itself."""
        found = self._run(self._plain, image)
        return {name: found[source] for name, source in self.named.items()}

    @functools.cached_property
    def _plain(self) -> OnnxRuntimeRunner:
        return open_runner(self.file.path.name, self.file.to_bytes())

    @functools.cached_property
    def _tapped(self) -> OnnxRuntimeRunner:
        return open_runner(self.file.path.name, self.file.with_outputs(tuple(self.paths.values())))

    def _run(self, runner: OnnxRuntimeRunner, image: Tensor) -> dict[str, Tensor]:
        if image.requires_grad:
            raise UsageError(
                "An ONNX file cannot be differentiated.",
                fix="Craft the patch against the network it was exported from, and give it with --patch.",
            )
        shown = np.ascontiguousarray(normalise(image, self.preprocess).cpu().numpy(), np.float32)
        size = self.batch or len(shown)
        short = -len(shown) % size
        filled = np.concatenate([shown, np.repeat(shown[-1:], short, axis=0)]) if short else shown
        parts: list[Arrays] = [
            runner.run({self.file.image: filled[start : start + size]})
            for start in range(0, len(filled), size)
        ]
        return {
            name: torch.from_numpy(np.concatenate([part[name] for part in parts])[: len(shown)])
            for name in parts[0]
        }


def open_runner(label: str, model: bytes) -> OnnxRuntimeRunner:
    """ONNX Runtime on a user's graph.

    Raises:
        NetworkError: it refuses the graph.
    """
    try:
        return OnnxRuntimeRunner(model)
    except BackendError as exc:
        raise NetworkError(
            f"The ONNX file {label} cannot be run: {exc.what}",
            fix="Export it again with the operators of an opset that ONNX Runtime has.",
        ) from exc


def try_out(
    file: OnnxFile, preprocess: Preprocess, size: Size, taps: Iterable[str]
) -> tuple[dict[str, Tensor], int]:
    """Run a file on noise, with taps read out, and refuse taps that statistics cannot be taken of.

    A graph that declares any batch and takes only one image, as a fixed reshape leaves it, counts as one
    of a fixed batch of 1.

    Returns:
        Outputs and taps by tensor name, and the batch that they are of.

    Raises:
        UsageError: no such tensor, or the file fixes another input size.
        NetworkError: the graph cannot be run.
        ShapeError: a tap is no map.
    """
    _require_size(file, size)
    taps = tuple(taps)
    maps = file.maps(size)
    for tap in taps:
        require_known(tap, file.tensors, maps, "tensor")
    everything = {name: name for name in (*file.outputs, *taps)}
    runner = open_runner(file.path.name, file.with_outputs(taps))
    failure: BackendError | None = None
    for batch in (file.batch,) if file.batch else (2, 1):
        image = np.random.default_rng(0).random((batch, 3, *size), np.float32)
        shown = normalise(torch.from_numpy(image), preprocess).numpy()
        try:
            found = runner.run({file.image: np.ascontiguousarray(shown)})
        except BackendError as exc:
            failure = failure or exc
            continue
        values = {name: torch.from_numpy(np.asarray(found[name])) for name in everything}
        _check_maps(values, taps)
        return values, batch
    reason = failure.what if failure else ""
    raise NetworkError(
        f"The ONNX file {file.path} does not run on an image of {size[0]} x {size[1]}: {reason}",
        fix="Give the --input-size that it was exported for.",
    ) from failure


def _require_size(file: OnnxFile, size: Size) -> None:
    for side, fixed, given in zip(
        ("height", "width"), (file.height, file.width), size, strict=True
    ):
        if fixed is not None and fixed != given:
            raise UsageError(
                f"The ONNX file {file.path} takes images of {side} {fixed}, not {given}.",
                fix=f"Give --input-size with that {side}, or export the network for another one.",
            )


def _check_maps(values: Mapping[str, Tensor], taps: Iterable[str]) -> None:
    for tap in taps:
        value = values[tap]
        shape: Shape | None = tuple(value.shape) if value.dtype == torch.float32 else None
        require_map(tap, shape, f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}")

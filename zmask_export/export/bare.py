"""nn.Module to bare ONNX graph, with the taps as extra outputs."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings

import onnx_ir as ir
import torch
from torch import Tensor, nn

from zmask_export.errors import CompileError, ZMaskError
from zmask_export.export.graph import export_graph
from zmask_export.export.names import NETWORK, name_by_module
from zmask_export.export.suppression import TRANSLATIONS
from zmask_export.foreign.factory import where
from zmask_export.foreign.onnx_network import OnnxNetwork
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import Size

OPSET = 20
"""ONNX operator set of every graph this package writes."""

TAP_PREFIX = "tap."
"""A tap's output in the bare graph is called ``tap.<name>``."""

MAX_BATCH = 64
"""Largest batch of a graph with a dynamic batch."""


class _Flat(nn.Module):
    """Outputs and taps as one tuple, as an exporter wants them."""

    def __init__(self, bare: BareNetwork) -> None:
        super().__init__()
        self.bare = bare

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs, features = self.bare(image)
        return (*outputs.values(), *features.values())


def export_bare(bare: BareNetwork, size: Size, batch: int | None = None) -> ir.Model:
    """Export a network with its normalisation and taps.

    Args:
        bare: the network; every path it reads becomes an output ``tap.<name>``. An ONNX file is one already
            and is brought into the same form.
        size: input (H, W); fixed in the graph.
        batch: fixed batch size, or None for a dynamic one.

    Returns:
        A model with input ``image`` float32 (N, 3, H, W), constants folded, batch norms merged into
        convolutions, node names ``network/<module path>/<operator>``.

    Raises:
        CompileError: the exporter cannot translate the network.
        UsageError: a tap names no layer, or one that does not run.
        ShapeError: the network refuses the input size, or a tapped layer's output is no map.
        NetworkError: see ``export_graph``.
    """
    if isinstance(bare, OnnxNetwork):
        return export_graph(bare, size, batch, opset=OPSET, tap_prefix=TAP_PREFIX, part=NETWORK)
    # Two images while tracing: a batch of 1 would be taken for a constant.
    example = torch.rand(batch or 2, 3, *size)
    dynamic = None if batch else ({0: torch.export.Dim("N", min=1, max=MAX_BATCH)},)
    names = [*bare.outputs, *(f"{TAP_PREFIX}{tap}" for tap in bare.paths)]
    # torch logs, at several places, the whole graph of a network that it cannot trace.
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Flat(bare),
                (example,),
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=["image"],
                output_names=names,
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as exc:
        if isinstance(exc.__cause__, ZMaskError):
            raise exc.__cause__ from None
        raise CompileError(
            f"The network cannot be exported to ONNX ({_reason(exc)}).",
            fix="Keep to tensor operations that torch.export can trace.",
        ) from exc
    finally:
        logging.disable(level)
    if program is None:
        raise CompileError("The exporter returned nothing.", fix="Update torch to 2.6 or newer.")
    model = program.model
    if batch is None and isinstance((model.graph.inputs[0].shape or [None])[0], int):
        raise CompileError(
            "The network's forward pass fixes the batch while it is traced.",
            fix="Take the batch from tensor.shape, not from len(); or build with --batch.",
        )
    name_by_module(model.graph, strip=("bare", "network"))
    return model


def _reason(exc: BaseException) -> str:
    """What the exporter could not do: the operator, or the line of the user's code."""
    cause: BaseException = exc
    while cause.__cause__ is not None:
        cause = cause.__cause__
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(cause))
    if operator is not None:
        return f"the operator {operator[1]} has no ONNX form"
    place = where(cause)
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return f"{lines[0][:200]}{f'; {place}' if place else ''}"

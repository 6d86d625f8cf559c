"""The graphs that are compared: the bare network, and the same with Z-Mask under every policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from zmask_export import presets
from zmask_export.artifacts.calibration import Calibration
from zmask_export.data.images import to_float
from zmask_export.export.bare import TAP_PREFIX, export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.fuse.plan import TapPlan
from zmask_export.fuse.suppression import lower_suppression
from zmask_export.models import registry
from zmask_export.pipeline.calibrate import calibrate
from zmask_export.pipeline.network import (
    NetworkOptions,
    OpenNetwork,
    load_calibration,
    open_network,
)
from zmask_export.pipeline.probe import source_of
from zmask_export.spec import Policy, Size

SCENES = 2
"""Drawn scenes that statistics are measured on where there is no calibration."""
FUSION = (2.0, -0.5, 2.0, 0.5, 3.0, -1.0, 4.0, 0.5)
"""Fusion parameters where there is no calibration: no time hangs on their values."""


@dataclass(frozen=True)
class Graphs:
    """ONNX files of one network, and what they were made of.

    Attributes:
        opened: the network.
        calibration: a calibration.
        tapped: the exported network with its taps as outputs, not lowered.
        bare: the network alone.
        protected: policy to the fused graph.
        plans: how each tap's cascade is lowered.
    """

    opened: OpenNetwork
    calibration: Calibration
    tapped: bytes
    bare: bytes
    protected: dict[Policy, bytes]
    plans: tuple[TapPlan, ...]

    def images(self, batch: int) -> NDArray[np.float32]:
        """Drawn scenes (N, 3, H, W) in [0, 1]."""
        return frames(self.opened.input_size, batch)


def frames(size: Size, batch: int) -> NDArray[np.float32]:
    """Drawn scenes (N, 3, H, W) in [0, 1].

    Raises:
        ShapeError: a side is too short for one.
    """
    scenes = source_of(None, size, count=batch).frames()
    return to_float([frame.image for frame in scenes if frame is not None])


def open_for_timing(options: NetworkOptions) -> OpenNetwork:
    """The network; with random weights where its preset brings none and none are given."""
    name = registry.get(options.model).name
    random = options.weights is None and presets.find(name, options.preset).weights is None
    return open_network(replace(options, random_weights=options.random_weights or random))


def calibration_for(opened: OpenNetwork, path: Path | None) -> Calibration:
    """A given calibration, the shipped one, or statistics of drawn scenes with made-up parameters.

    Raises:
        CalibrationError: the file does not fit the network.
    """
    path = path or opened.shipped.calibration
    if path is not None:
        calibration = load_calibration(path, opened, may_change=("fill", "corners"))
        calibration.require_fitted()
        return calibration
    measured = calibrate(opened, source_of(None, opened.input_size, count=SCENES), batch=1)
    fusion = np.asarray(FUSION, np.float32)
    return replace(measured, fusion=fusion).with_header(threshold=1.0)


def build_graphs(opened: OpenNetwork, calibration: Calibration) -> Graphs:
    """Export the network and fuse it under every policy.

    Raises:
        CompileError, ShapeError: see ``export_bare`` and ``fuse``.
    """
    defense = calibration.header.defense
    tapped = to_bytes(export_bare(opened.exportable(defense), opened.input_size))
    fused = {policy: fuse(to_model(tapped), calibration, FuseOptions(policy)) for policy in Policy}
    return Graphs(
        opened=opened,
        calibration=calibration,
        tapped=tapped,
        bare=without_taps(tapped),
        protected={policy: found.to_bytes() for policy, found in fused.items()},
        plans=fused[Policy.DETECT].plans,
    )


def without_taps(tapped: bytes) -> bytes:
    """The network alone, as one would export it without a defense."""
    model = to_model(tapped)
    outputs = model.graph.outputs
    kept = [value for value in outputs if not (value.name or "").startswith(TAP_PREFIX)]
    outputs.clear()
    outputs.extend(kept)
    lower_suppression(model)
    return to_bytes(RemoveUnusedNodesPass()(model).model)


def to_model(data: bytes) -> ir.Model:
    """A model of its own: fusing consumes one."""
    return ir.serde.deserialize_model(onnx.load_model_from_string(data))


def to_bytes(model: ir.Model) -> bytes:
    """The ONNX file of a model."""
    return bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))

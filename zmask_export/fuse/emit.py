"""The fused graph: bare network, z-scores, cascades, fusion block, gate."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass, TopologicalSortPass

from zmask_export.artifacts.calibration import Calibration
from zmask_export.errors import CompileError, ShapeError
from zmask_export.export.bare import TAP_PREFIX
from zmask_export.fuse import gate
from zmask_export.fuse.builder import GraphBuilder
from zmask_export.fuse.cascade import emit_heatmaps, emit_zscore, maximum
from zmask_export.fuse.costs import CPU, Machine
from zmask_export.fuse.fusion import emit_fusion
from zmask_export.fuse.plan import Lowering, TapPlan, plan_taps
from zmask_export.fuse.suppression import lower_suppression
from zmask_export.spec import Policy


@dataclass(frozen=True)
class FuseOptions:
    """How to fuse.

    Attributes:
        policy: what the engine does with the mask.
        raw_taps: also output the tapped activations.
        machine: whose time the cascades are planned for.
        form: of every cascade; None plans each tap's.
    """

    policy: Policy = Policy.GATED
    raw_taps: bool = False
    machine: Machine = CPU
    form: Lowering | None = None


@dataclass(frozen=True)
class Fused:
    """A fused model and the plan of its cascades."""

    model: ir.Model
    plans: tuple[TapPlan, ...]

    def to_bytes(self) -> bytes:
        """The ONNX file."""
        return ir.serde.serialize_model(self.model).SerializeToString(deterministic=True)


def fuse(bare: ir.Model, calibration: Calibration, options: FuseOptions) -> Fused:
    """Put Z-Mask around an exported network. ``bare`` is consumed.

    Args:
        bare: from ``export_bare``; outputs ``tap.<name>`` for at least the defense's taps.
        calibration: a fitted calibration.
        options: policy and outputs.

    Raises:
        CalibrationError: the calibration is not fitted.
        ShapeError: a tap is missing, or its channels or the input size do not fit the calibration.
        CompileError: the finished graph does not pass ONNX's checker.
    """
    parameters, _ = calibration.require_fitted()
    header = calibration.header
    defense = header.defense
    graph = bare.graph
    image = graph.inputs[0]
    _require_size(image, header.input_size)
    network = list(graph)
    outputs = [v for v in graph.outputs if not (v.name or "").startswith(TAP_PREFIX)]
    taps = {
        (v.name or "").removeprefix(TAP_PREFIX): v
        for v in graph.outputs
        if (v.name or "").startswith(TAP_PREFIX)
    }
    graph.outputs.clear()
    shapes = {tap: _tap_shape(tap, taps, calibration) for tap in defense.taps}
    plans = plan_taps(defense, shapes, options.machine, options.form)

    build = GraphBuilder(graph)
    threshold = ir.Value(
        name="threshold", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])
    )
    graph.inputs.append(threshold)
    batch = build.op("cascade", "Shape", [image], {"start": 0, "end": 1})
    maps: dict[str, dict[str, ir.Value]] = {"shallow": {}, "deep": {}}
    for plan in plans:
        z = emit_zscore(
            build, plan.tap, taps[plan.tap], calibration.mean[plan.tap], calibration.std[plan.tap]
        )
        for branch, heatmap in emit_heatmaps(build, plan, z, batch, defense.grid).items():
            maps[branch][plan.tap] = heatmap
    shallow = maximum(build, "fusion", maps["shallow"])
    deep = maximum(build, "fusion", maps["deep"])
    found = emit_fusion(
        build,
        image,
        shallow,
        deep,
        parameters,
        threshold,
        size=header.input_size,
        grid=defense.grid,
        corners=defense.corners,
    )

    colour = header.preprocess.colour(defense.fill)
    names = [value.name or "" for value in outputs]
    if options.policy is not Policy.DETECT:
        for value in outputs:
            value.name = f"first_pass/{value.name}"
    if options.policy is Policy.MASK:
        covered = gate.emit_cover(build, image, found.mask, colour)
        outputs = gate.emit_second_pass(build, network, image, covered, outputs)
    elif options.policy is Policy.GATED:
        outputs = gate.emit_gated(
            build, network, image, found.mask, found.flag, colour, outputs, list(taps.values())
        )
    results = dict(zip(names, outputs, strict=True))
    results |= {"mask": found.mask, "score": found.score, "flag": found.flag}
    results |= {"soft_mask": found.soft_mask, "heatmap_shallow": shallow, "heatmap_deep": deep}
    for branch, layers in maps.items():
        results |= {f"heatmap.{branch}.{tap}": value for tap, value in layers.items()}
    if options.raw_taps:
        results |= {f"{TAP_PREFIX}{tap}": taps[tap] for tap in defense.taps}
    _set_outputs(bare, results, calibration)
    return Fused(_finish(bare), tuple(plans))


def _set_outputs(model: ir.Model, results: dict[str, ir.Value], calibration: Calibration) -> None:
    graph = model.graph
    n = graph.inputs[0].shape[0] if graph.inputs[0].shape is not None else None
    h, w = calibration.header.input_size
    grid = calibration.header.defense.grid
    for name, value in results.items():
        value.name = name
        if name == "mask":
            value.shape = ir.Shape([n, 1, h, w])
        elif name in ("score", "flag"):
            value.shape = ir.Shape([n])
        elif "heatmap" in name or name == "soft_mask":
            value.shape = ir.Shape([n, 1, *grid])
        dtype = ir.DataType.BOOL if name == "flag" else ir.DataType.FLOAT
        if value.type is None:
            value.type = ir.TensorType(dtype)
        graph.outputs.append(value)


def _finish(model: ir.Model) -> ir.Model:
    lower_suppression(model)
    for transform in (RemoveUnusedNodesPass(), TopologicalSortPass(), NameFixPass()):
        model = transform(model).model
    model.producer_name = "zmask-export"
    model.producer_version = None
    model.doc_string = None
    model.graph.name = "protected"
    model.metadata_props.clear()
    try:
        onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise CompileError(
            f"The fused graph does not pass the ONNX checker ({' '.join(str(exc).split())[:300]}).",
            fix="Report this with the command that you ran.",
        ) from exc
    return model


def _require_size(image: ir.Value, size: tuple[int, int]) -> None:
    shape = image.shape
    if shape is None or tuple(shape[2:]) != size:
        raise ShapeError(
            f"The network was exported for {tuple(shape[2:]) if shape else None} and calibrated at {size}.",
            fix="Export and calibrate with one --input-size.",
        )


def _tap_shape(
    tap: str, taps: dict[str, ir.Value], calibration: Calibration
) -> tuple[int, int, int]:
    if tap not in taps:
        raise ShapeError(
            f"The graph has no output {TAP_PREFIX}{tap}.", fix="Export the network with this tap."
        )
    shape = taps[tap].shape
    if shape is None or len(shape) != 4 or not all(isinstance(d, int) for d in shape[1:]):
        raise ShapeError(
            f"The tap {tap} has shape {shape}; only its batch may be dynamic.",
            fix="Export with a fixed input size.",
        )
    channels, h, w = (int(str(d)) for d in shape[1:])
    if channels != calibration.mean[tap].size:
        raise ShapeError(
            f"The tap {tap} has {channels} channels and the calibration {calibration.mean[tap].size}.",
            fix="Calibrate this network.",
        )
    return channels, h, w

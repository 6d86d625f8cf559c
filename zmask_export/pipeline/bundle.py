"""Writing a bundle: graph, engines, calibration, parity, manifest."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx_ir as ir

from zmask_export import __version__
from zmask_export.artifacts.calibration import Calibration
from zmask_export.artifacts.files import new_directory
from zmask_export.artifacts.manifest import (
    CALIBRATION_FILE,
    FILE_NAME,
    PARITY_FILE,
    SBOM_FILE,
    SCHEMA_VERSION,
    EngineInfo,
    Manifest,
    TensorInfo,
    describe_files,
)
from zmask_export.artifacts.signature import SIGNATURE_FILE, Signer
from zmask_export.backends.tensorrt import BatchRange, CompiledEngine
from zmask_export.export.bare import OPSET
from zmask_export.fuse.emit import Fused
from zmask_export.pipeline.sbom import bill_of_materials
from zmask_export.runtime.choice import ONNX_FILE
from zmask_export.spec import DetectorLimits, Policy, Precision, Tolerances
from zmask_export.verify.report import ParityReport

_MEANINGS = {
    "logits": ("any", "class scores of every pixel, before softmax"),
    "boxes": ("image", "x1 y1 x2 y2 in pixels of the image; rows from count on are 0"),
    "scores": ("[0, 1]", "of every box, descending; rows from count on are 0"),
    "labels": ("0 to classes - 1", "class of every box; rows from count on are 0"),
    "count": ("0 to K", "number of boxes"),
    "mask": ("0 or 1", "1 = the pixel was kept, 0 = it is covered"),
    "score": ("[0, inf)", "over-activation d; compare with the threshold"),
    "flag": ("false or true", "whether an adversarial object was found"),
    "soft_mask": ("(0, 1)", "soft mask on the grid; covered above 0.5"),
    "heatmap_shallow": ("[0, inf)", "largest over-activation of the shallow layers"),
    "heatmap_deep": ("[0, inf)", "largest over-activation of the deep layers"),
}
Signature = list[tuple[str, list[int | str], str]]
"""Names, shapes and dtypes of tensors."""
_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime-gpu", "onnxruntime", "torch")


def write_bundle(
    out: Path,
    *,
    force: bool,
    calibration: Calibration,
    policy: Policy,
    classes: tuple[str, ...],
    limits: DetectorLimits,
    tolerances: Tolerances,
    batch: int | None,
    onnx_model: bytes,
    signature: tuple[Signature, Signature],
    engines: Sequence[CompiledEngine],
    engine_batch: BatchRange | None,
    parity: ParityReport,
    precision: Precision = "fp32",
    opset: int = OPSET,
    signer: Signer | None = None,
) -> Manifest:
    """Write the folder whole, or not at all.

    Args:
        out: where to.
        force: replace what is there.
        calibration, policy, classes, limits, tolerances, batch: go into the manifest.
        onnx_model: the fused graph.
        signature: names, shapes and dtypes of the graph's inputs and outputs.
        engines: compiled engines.
        engine_batch: batches that the engines take; None for the graph's fixed one, or for 1.
        parity: the verified report.
        precision, opset: of the graph.
        signer: signs the manifest; None leaves the bundle unsigned.

    Raises:
        OutputError: it exists already, or cannot be written.
    """
    header = calibration.header
    with new_directory(out, force=force) as folder:
        (folder / ONNX_FILE).write_bytes(onnx_model)
        (folder / CALIBRATION_FILE).write_bytes(calibration.to_bytes())
        (folder / PARITY_FILE).write_text(parity.model_dump_json(indent=2) + "\n", "utf-8")
        for engine in engines:
            (folder / engine_file(engine)).write_bytes(engine.data)
        bill = bill_of_materials(out.name, header, [engine.flavour for engine in engines])
        (folder / SBOM_FILE).write_text(bill, "utf-8")
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            tool_version=__version__,
            name=out.name,
            model=header.model,
            policy=policy,
            precision=precision,
            opset=opset,
            classes=classes,
            limits=limits,
            input_size=header.input_size,
            batch=batch,
            preprocess=header.preprocess,
            fill=header.defense.fill,
            threshold=calibration.require_fitted()[1],
            inputs=tuple(_describe(*tensor) for tensor in signature[0]),
            outputs=tuple(_describe(*tensor) for tensor in signature[1]),
            engines=tuple(_engine_info(engine, batch, engine_batch) for engine in engines),
            tolerances=tolerances,
            weights_sha256=header.weights_sha256,
            calibration_sha256=calibration.sha256(),
            versions=_versions(engines),
            files=describe_files(folder),
        ).sealed()
        data = manifest.to_bytes()
        (folder / FILE_NAME).write_bytes(data)
        if signer is not None:
            (folder / SIGNATURE_FILE).write_bytes(signer.sign(data))
    return manifest


def signature_of(fused: Fused) -> tuple[Signature, Signature]:
    """Inputs and outputs of a fused graph; the batch is "N" where it is dynamic."""
    graph = fused.model.graph

    def described(values: Iterable[ir.Value]) -> Signature:
        return [
            (
                v.name or "",
                [d if isinstance(d, int) else "N" for d in v.shape or ()],
                (v.dtype or ir.DataType.FLOAT).numpy().name,
            )
            for v in values
        ]

    return described(graph.inputs), described(graph.outputs)


def engine_file(engine: CompiledEngine) -> str:
    """File name of an engine in a bundle."""
    return f"protected.{engine.flavour}.engine"


def _engine_info(
    engine: CompiledEngine, batch: int | None, engine_batch: BatchRange | None
) -> EngineInfo:
    return EngineInfo(
        file=engine_file(engine),
        flavour=engine.flavour,
        version=engine.version,
        capabilities=engine.capabilities,
        activation_bytes=engine.activation_bytes,
        weight_bytes=engine.weight_bytes,
        tf32=engine.tf32,
        convolutions=engine.convolutions,
        compiled=engine.compiled,
        batch=(
            (engine_batch.smallest, engine_batch.tuned, engine_batch.largest)
            if engine_batch
            else batch or 1
        ),
    )


def _describe(name: str, shape: Sequence[Any], dtype: str) -> TensorInfo:
    dims = tuple(d if isinstance(d, int) else "N" for d in shape)
    if name == "image":
        return TensorInfo(
            name=name, dtype="float32", shape=dims, range="[0, 1]", meaning="RGB image, NCHW"
        )
    if name == "threshold":
        return TensorInfo(
            name=name,
            dtype="float32",
            shape=dims,
            range="[0, inf)",
            meaning="lambda0: an image with a larger score is flagged",
        )
    own = ("any", "an output of the network, as it gives it")
    values, meaning = _MEANINGS.get(name, own)
    if name.startswith("tap."):
        values, meaning = "any", f"activations of {name.removeprefix('tap.')}"
    if name.startswith("heatmap."):
        _, branch, tap = name.split(".", 2)
        values, meaning = "[0, inf)", f"over-activation at {tap}, pooled with the {branch} kernels"
    return TensorInfo(name=name, dtype=dtype, shape=dims, range=values, meaning=meaning)


def _versions(engines: Sequence[CompiledEngine]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions | {engine.flavour: engine.version for engine in engines}

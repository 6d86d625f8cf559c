"""build: a network to a verified bundle, every step in order."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir
from torch import Tensor

from zmask_export.artifacts.bundle import is_bundle
from zmask_export.artifacts.calibration import Calibration
from zmask_export.artifacts.files import recover, require_writable
from zmask_export.artifacts.manifest import Manifest
from zmask_export.artifacts.signature import Signer
from zmask_export.attack import patch as patches
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.tensorrt import CompiledEngine
from zmask_export.data.images import OnBad
from zmask_export.defense.zmask import ZMask
from zmask_export.errors import CalibrationError, OutputError, UsageError
from zmask_export.export.bare import MAX_BATCH, export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.pipeline.bundle import signature_of, write_bundle
from zmask_export.pipeline.calibrate import calibrate
from zmask_export.pipeline.engines import compile_smallest, engine_graphs
from zmask_export.pipeline.fit import FitOptions, fit
from zmask_export.pipeline.network import (
    NetworkOptions,
    OpenNetwork,
    load_calibration,
    open_network,
)
from zmask_export.pipeline.precision import range_images, range_patch, require_possible
from zmask_export.pipeline.probe import noise_patch, probe_images, source_of
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.pipeline.reproducible import measured_on, one_thread, require_reproducible
from zmask_export.pipeline.targets import Target, flavours
from zmask_export.precision.lower import lower
from zmask_export.spec import Policy, Precision
from zmask_export.verify.parity import verify
from zmask_export.verify.report import ParityReport

NOISE = "noise"
"""What stands for a patch where there is none."""
SCENES = 6
"""Drawn scenes that random weights are calibrated and fitted on."""
PROBES = 2
"""Images, clean and patched, that a build is verified on."""


@dataclass(frozen=True)
class BuildOptions:
    """What a user says about a build.

    Attributes:
        network: which network.
        out: the bundle's folder.
        force: replace an existing bundle.
        policy: what the engine does with the mask.
        target: which engines to compile.
        calibration: a fitted calibration file; None takes the shipped one, or makes one of
            ``images``.
        images: clean images to calibrate and fit on; with int8 and a calibration, for its ranges alone.
        patches: patches to fit on and to verify with.
        batch: fixed batch of the graph; None for a dynamic one.
        max_batch: largest batch that the engines of a dynamic graph take. With 1, two builds give the
            same bytes; a range of batches leaves marks of the compiler's threads.
        capabilities: compute capabilities of a tensorrt-rtx engine.
        raw_taps: also output the tapped activations.
        precision: what the network computes in.
        on_bad: what to do with images that are no 8-bit RGB.
        fit: how to fit.
        sign_key: private key to sign the bundle with.
        reproducible: refuse what two builds do not make equal, and compute on one thread.
    """

    network: NetworkOptions
    out: Path
    force: bool = False
    policy: Policy = Policy.GATED
    target: Target = "auto"
    calibration: Path | None = None
    images: Path | None = None
    patches: tuple[Path, ...] = ()
    batch: int | None = None
    max_batch: int = 1
    capabilities: tuple[str, ...] = ()
    raw_taps: bool = False
    precision: Precision = "fp32"
    on_bad: OnBad = "error"
    fit: FitOptions = field(default_factory=FitOptions)
    sign_key: Path | None = None
    reproducible: bool = False


@dataclass(frozen=True)
class Built:
    """What a build made."""

    out: Path
    manifest: Manifest
    parity: ParityReport


def build(options: BuildOptions, *, reporter: Reporter | None = None) -> Built:
    """Open, calibrate where needed, export, fuse, verify, compile, bundle.

    Raises:
        ZMaskError: of the step that failed; nothing is left at ``options.out``.
    """
    with one_thread() if options.reproducible else contextlib.nullcontext():
        return _build(options, reporter or Silent())


def _build(options: BuildOptions, reporter: Reporter) -> Built:
    require_place(options.out, force=options.force)
    signer = None if options.sign_key is None else Signer(options.sign_key)
    ranges_alone = options.calibration is not None and options.precision == "int8"
    if options.calibration is not None and options.images is not None and not ranges_alone:
        raise UsageError(
            "With --calibration, the images of --images are not used.",
            fix="Give the finished calibration, or images to make a new one of.",
        )
    if options.batch is not None and options.max_batch > 1:
        raise UsageError(
            "With a fixed --batch, --max-batch has no meaning.", fix="Give one of the two."
        )
    if not 1 <= options.max_batch <= MAX_BATCH:
        raise UsageError(
            f"A largest batch of {options.max_batch} is not possible.",
            fix=f"Choose --max-batch between 1 and {MAX_BATCH}.",
        )
    chosen, notes = flavours(options.target, options.capabilities)
    if options.reproducible:
        require_reproducible(chosen, options.max_batch)
    for note in notes:
        reporter.note(note)
    with reporter.bar("opening", 1) as advance:
        opened = open_network(options.network)
        options = replace(options, batch=opened.batch_of(options.batch))
        advance(1)
    require_possible(
        options.precision, opened, chosen, options.images,
        random_weights=options.network.random_weights, reporter=reporter,
    )  # fmt: skip
    calibration, attack = obtain_calibration(opened, options, reporter)
    calibration.require_fitted()

    with reporter.bar("exporting", 2) as advance:
        under = range_patch(opened, options.patches)
        bare = lower(
            export_bare(
                opened.exportable(calibration.header.defense), opened.input_size, options.batch
            ),
            options.precision,
            range_images(opened, options.images, under, options.batch, options.on_bad),
        )
        advance(1, "fusing")
        settings = FuseOptions(options.policy, options.raw_taps)
        exported = ir.serde.serialize_model(bare).SerializeToString()
        fused = fuse(bare, calibration, settings)
        model = fused.to_bytes()
        advance(2)
    parity = check(opened, calibration, options, model, attack, reporter)
    parity.require()

    engines: list[CompiledEngine] = []
    batch = None
    if chosen:
        (_, _), (_, patched) = probe_images(source_of(None, opened.input_size, count=1), attack)
        engines, batch = compile_smallest(
            engine_graphs(
                exported,
                calibration,
                settings,
                model,
                patched,
                options.batch or 1,
                options.precision,
            ),
            chosen,
            batch=options.batch,
            largest=options.max_batch,
            capabilities=options.capabilities,
            precision=options.precision,
            reporter=reporter,
        )
    manifest = write_bundle(
        options.out,
        force=options.force,
        calibration=calibration,
        policy=options.policy,
        classes=opened.class_names,
        limits=options.network.limits,
        tolerances=opened.preset.contract(options.precision),
        batch=options.batch,
        onnx_model=model,
        signature=signature_of(fused),
        engines=engines,
        engine_batch=batch,
        parity=parity,
        precision=options.precision,
        opset=fused.model.graph.opset_imports[""],
        signer=signer,
    )
    return Built(options.out, manifest, parity)


def require_place(out: Path, *, force: bool) -> None:
    """Refuse a place for a bundle before the work for it starts.

    Raises:
        OutputError: it exists and ``force`` is off, it is no bundle, or it cannot be written.
    """
    recover(out)
    if out.exists() and not force:
        raise OutputError(f"{out} exists already.", fix="Pass --force to replace it, or --out.")
    if out.exists() and not is_bundle(out):
        raise OutputError(
            f"{out} is no bundle, and --force replaces nothing else.",
            fix="Choose another folder with --out.",
        )
    require_writable(out, file=False)


def obtain_calibration(
    opened: OpenNetwork, options: BuildOptions, reporter: Reporter
) -> tuple[Calibration, Tensor]:
    """The calibration to build with, and the patch to verify with.

    A given file comes first, then images, then the shipped file where the weights are the shipped
    ones; random weights are calibrated on drawn scenes and fitted on a patch of noise.

    Raises:
        CalibrationError: there is none, or it does not fit the network.
    """
    shipped = opened.shipped
    paths = options.patches or ((shipped.patch,) if shipped.patch is not None else ())
    named = [(path.name, patches.load(path)) for path in paths]
    named = named or [(NOISE, noise_patch(opened.input_size))]
    attack = named[0][1]
    if options.calibration is not None:
        return load_calibration(options.calibration, opened, may_change=("fill", "corners")), attack
    if options.images is None and not options.network.random_weights:
        if shipped.calibration is None:
            raise CalibrationError(
                "These weights have no calibration yet.",
                fix="Give clean images with --images, or a calibration file with --calibration.",
            )
        return load_calibration(shipped.calibration, opened, may_change=("fill", "corners")), attack
    if not paths and not options.network.random_weights:
        raise UsageError(
            "Fitting needs a patch that was crafted against these weights.",
            fix="Make one with zmask-export craft, and give it with --patch.",
        )
    source = source_of(
        options.images, opened.input_size, count=_count(options), on_bad=options.on_bad
    )
    statistics = calibrate(opened, source, batch=1, reporter=reporter)
    return fit(opened, statistics, source, named, options.fit, reporter=reporter), attack


def _count(options: BuildOptions) -> int:
    return SCENES if options.images is None else 500


def check(
    opened: OpenNetwork,
    calibration: Calibration,
    options: BuildOptions,
    model: bytes,
    patch: Tensor,
    reporter: Reporter,
) -> ParityReport:
    """Compare the fused graph with the literal reference on clean and patched scenes."""
    reference = ZMask(opened.bare(calibration.header.defense), calibration, options.policy)
    probes = probe_images(source_of(None, opened.input_size, count=PROBES), patch)
    device, threads = measured_on(options.reproducible)
    with reporter.bar("verifying", len(probes)) as advance:
        return verify(
            reference,
            OnnxRuntimeRunner(model, threads=threads, device=device, precision=options.precision),
            probes,
            opened.preset.contract(options.precision),
            batches=(options.batch,) if options.batch else (1, 4),
            on_image=advance,
        )

"""verify: an existing bundle against the reference, again, on any machine and any images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from zmask_export.artifacts import calibration as calibrations
from zmask_export.artifacts.calibration import Calibration
from zmask_export.artifacts.manifest import CALIBRATION_FILE
from zmask_export.artifacts.signature import KeySource
from zmask_export.attack import patch as patches
from zmask_export.data.images import OnBad
from zmask_export.defense.zmask import ZMask
from zmask_export.errors import CalibrationError
from zmask_export.pipeline.network import (
    NetworkOptions,
    OpenNetwork,
    fitting_calibration,
    open_network,
)
from zmask_export.pipeline.probe import noise_patch, probe_images, source_of
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.runtime.protected import Protected, load_checked
from zmask_export.verify.parity import verify
from zmask_export.verify.report import ParityReport


@dataclass(frozen=True)
class VerifyOptions:
    """What to verify on.

    Attributes:
        network: the network the bundle was built from; the model's name is read from the bundle.
        images: a folder; drawn scenes where None.
        count: at most this many images, each clean and patched.
        patch: a patch file; the shipped one, or noise, where None.
        on_bad: what to do with images that are no 8-bit RGB.
        verify_key: public key that the bundle must be signed with.
    """

    network: NetworkOptions
    images: Path | None = None
    count: int = 2
    patch: Path | None = None
    on_bad: OnBad = "error"
    verify_key: Path | None = None


@dataclass(frozen=True)
class OpenBundle:
    """A bundle with the network that it was built from, and its calibration."""

    engine: Protected
    opened: OpenNetwork
    calibration: Calibration


def open_bundle(
    bundle: Path, network: NetworkOptions, verify_key: KeySource | None = None
) -> OpenBundle:
    """Open a bundle, and the network, which must be the bundle's.

    Raises:
        BundleError: it was changed, or is not signed with ``verify_key``.
        CalibrationError: the weights given are not those of the bundle.
    """
    engine, checked = load_checked(
        bundle, also=(CALIBRATION_FILE,), backend="onnxruntime", verify_key=verify_key
    )
    opened = open_network(replace(network, limits=engine.manifest.limits))
    path = bundle / CALIBRATION_FILE
    own = calibrations.parse(checked.read(CALIBRATION_FILE), path)
    calibration = fitting_calibration(own, path, opened)
    if own.sha256() != engine.manifest.calibration_sha256:
        raise CalibrationError(
            f"The calibration in {bundle} is not the one of its manifest.", fix="Build it again."
        )
    return OpenBundle(engine, opened, calibration)


def verify_bundle(
    bundle: Path, options: VerifyOptions, *, reporter: Reporter | None = None
) -> ParityReport:
    """Compare a bundle's graph with the literal reference.

    Raises:
        BundleError: it was changed, or is not signed with the key.
        CalibrationError: the weights given are not those of the bundle.
    """
    reporter = reporter or Silent()
    bundled = open_bundle(bundle, options.network, options.verify_key)
    engine, opened, calibration = bundled.engine, bundled.opened, bundled.calibration
    manifest = engine.manifest
    path = options.patch or opened.shipped.patch
    patch = patches.load(path) if path is not None else noise_patch(opened.input_size)
    source = source_of(
        options.images, opened.input_size, count=options.count, on_bad=options.on_bad
    )
    probes = probe_images(source, patch)
    reference = ZMask(opened.bare(calibration.header.defense), calibration, manifest.policy)
    with reporter.bar("verifying", len(probes)) as advance:
        return verify(
            reference,
            engine.runner,
            probes,
            manifest.tolerances,
            batches=(manifest.batch,) if manifest.batch else (1, 4),
            on_image=advance,
        )

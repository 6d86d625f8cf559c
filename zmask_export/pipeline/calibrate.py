"""calibrate: clean images to a calibration file that holds statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zmask_export import __version__
from zmask_export.artifacts.calibration import FORMAT_VERSION, Calibration, CalibrationHeader
from zmask_export.artifacts.files import recover, require_writable
from zmask_export.calibrate.shards import on_cluster
from zmask_export.calibrate.statistics import measure
from zmask_export.cluster.pool import Cluster
from zmask_export.data.images import ImageFolder, ImageSource
from zmask_export.errors import UsageError
from zmask_export.export.bare import export_bare
from zmask_export.pipeline.network import OpenNetwork
from zmask_export.pipeline.progress import Reporter, Silent


def calibrate(
    opened: OpenNetwork,
    images: ImageSource,
    out: Path | None = None,
    *,
    batch: int = 4,
    cluster: Cluster | None = None,
    reporter: Reporter | None = None,
) -> Calibration:
    """Measure mean and standard deviation of every tap over clean images.

    Args:
        opened: the network.
        images: clean images of the network's input size.
        out: the calibration file to write; progress is kept beside it, and a run that was
            interrupted goes on from there. None writes nothing.
        batch: images a forward pass.
        cluster: whose workers measure; None measures in this process. Images must then lie in a
            folder that every worker sees.
        reporter: shows progress.

    Returns:
        The calibration, without fitted parameters.

    Raises:
        DatasetError, ImageError, WeightsError, OutputError: see ``measure`` and ``write_bytes``.
        CompileError, NetworkError: a network of the user's own cannot be exported.
        UsageError: a cluster is given, and images that lie in no folder.
        BackendError: a worker was lost again and again.
    """
    reporter = reporter or Silent()
    if out is not None:
        require_writable(out)
        if opened.reader is not None:
            # What a build will refuse is refused here, before the images are read.
            export_bare(opened.exportable(), opened.input_size, opened.batch)
    checkpoint = None if out is None else out.with_name(f".{out.name}.progress")
    if checkpoint is not None:
        recover(checkpoint)
    identity = f"{opened.weights_sha256} {opened.preprocess} {opened.defense.taps}"
    bare, walk = opened.bare(), None
    if cluster is not None:
        if not isinstance(images, ImageFolder):
            raise UsageError("Workers can only read a folder.", fix="Give an ImageFolder.")
        walk = on_cluster(cluster, bare, images, batch)
    with reporter.bar("calibrating", len(images.names)) as advance:
        progress = measure(
            bare,
            images,
            batch=batch,
            checkpoint=checkpoint,
            identity=identity,
            walk=walk,
            on_image=advance,
            on_skip=lambda error: reporter.note(f"left out: {error.what}"),
        )
    header = CalibrationHeader(
        format_version=FORMAT_VERSION,
        tool_version=__version__,
        model=opened.entry.name,
        classes=opened.classes,
        weights_sha256=opened.weights_sha256,
        preprocess=opened.preprocess,
        input_size=opened.input_size,
        defense=opened.defense,
        images=progress.images,
        dataset_sha256=progress.digest,
    )
    moments = progress.moments
    calibration = Calibration(
        header,
        {tap: m.mean.astype(np.float32) for tap, m in moments.items()},
        {tap: m.std().astype(np.float32) for tap, m in moments.items()},
    )
    dead = sum(int((std == 0).sum()) for std in calibration.std.values())
    if dead:
        reporter.note(f"{dead} channels never vary on these images; they count as 0.")
    if out is not None:
        calibration.save(out)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return calibration

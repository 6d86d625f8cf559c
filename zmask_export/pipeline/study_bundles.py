"""The bundles of a study that are not there: built from the networks that it names."""

from __future__ import annotations

from zmask_export.evaluate.study import Study
from zmask_export.pipeline.build import BuildOptions, build
from zmask_export.pipeline.network import NetworkOptions
from zmask_export.pipeline.progress import Reporter


def build_absent(study: Study, reporter: Reporter) -> None:
    """Build every absent bundle whose network names its model; without engines, which are not measured.

    Raises:
        ZMaskError: see ``pipeline.build``.
    """
    for network in study.networks.values():
        if network.bundle is None or network.model is None or network.bundle.exists():
            continue
        reporter.note(f"building {network.bundle.name}")
        options = BuildOptions(
            network=NetworkOptions(
                model=network.model, preset=network.preset, weights=network.weights
            ),
            out=network.bundle,
            target="onnx",
            calibration=network.calibration,
        )
        build(options, reporter=reporter)

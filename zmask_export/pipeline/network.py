"""Opening a network: entry, preset, weights, normalisation, defense."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zmask_export import presets
from zmask_export.artifacts import calibration as calibrations
from zmask_export.artifacts.calibration import Calibration
from zmask_export.errors import CalibrationError, UsageError
from zmask_export.foreign.outputs import MOST_CLASSES
from zmask_export.models import registry, weights
from zmask_export.models.detection import published
from zmask_export.models.detection.limits import apply_limits
from zmask_export.models.registry import ModelEntry
from zmask_export.models.taps import resolve
from zmask_export.pipeline.foreign import open_foreign
from zmask_export.pipeline.opened import (
    NetworkOptions,
    OpenNetwork,
    asked_fields,
    changed_defense,
    chosen_defense,
    named_preprocess,
)
from zmask_export.spec import DetectorLimits

__all__ = [
    "NetworkOptions",
    "OpenNetwork",
    "fitting_calibration",
    "load_calibration",
    "open_network",
]


def open_network(options: NetworkOptions) -> OpenNetwork:
    """Resolve the options against registry and preset, and load the weights.

    Raises:
        UsageError: unknown network, preset, tap or normalisation, or options that contradict.
        WeightsError: the checkpoint cannot be used.
        NetworkError, ShapeError: a network of the user's own, or a tap of it, cannot be used.
    """
    if options.module is not None or options.onnx is not None:
        return open_foreign(options)
    if options.outputs:
        raise UsageError(
            f"{options.model} has its own names for its outputs.", fix="Leave out --outputs."
        )
    entry = registry.get(options.model)
    shipped = presets.find(entry.name, options.preset)
    if options.weights is not None and options.random_weights:
        raise UsageError(
            "--weights and --random-weights exclude each other.", fix="Leave out one of them."
        )
    path = None if options.random_weights else _weights(entry, options.weights) or shipped.weights
    if options.random_weights:
        network, classes = weights.random_network(entry), entry.classes
    elif path is not None:
        network, classes = weights.load_network(entry, path)
        published.run_as_published(network, entry.name, path)
    else:
        raise UsageError(
            f"The preset {options.preset!r} brings no weights.",
            fix="Give --weights FILE, or ask for --random-weights.",
        )
    if entry.task == "segmentation" and classes > MOST_CLASSES:
        raise UsageError(
            f"A network of {classes} classes is more than the {MOST_CLASSES} that a prediction holds.",
            fix="Use a network with fewer classes.",
        )
    if entry.task == "detection":
        apply_limits(network, options.limits)
    elif options.limits != DetectorLimits():
        raise UsageError(
            f"{entry.name} is no detector: it has no limits of detections.",
            fix="Leave out --detections, --box-candidates, --score-threshold and --iou-threshold.",
        )
    preprocess = entry.preprocess
    if options.preprocess is not None:
        preprocess = named_preprocess(options.preprocess)
    size = options.input_size or shipped.preset.input_size
    if min(size) < entry.min_side:
        raise UsageError(
            f"An input of {size[0]} x {size[1]} is too small for {entry.name}.",
            fix=f"Give --input-size with sides of at least {entry.min_side}.",
        )
    opened = OpenNetwork(
        entry=entry,
        network=network,
        classes=classes,
        preprocess=preprocess,
        weights_sha256=weights.fingerprint(network),
        input_size=size,
        defense=chosen_defense(options, shipped.preset, entry.shallow, entry.deep),
        asked=asked_fields(options, shipped.preset),
        preset=shipped.preset,
        shipped=shipped if path == shipped.weights else shipped.settings_alone(),
    )
    # An unknown tap is refused here, before anything long starts.
    resolve(network, opened.bare().paths)
    return opened


def _weights(entry: ModelEntry, given: Path | None) -> Path | None:
    if given is not None and str(given) == published.NAME and not given.exists():
        return published.fetch(entry.name)
    return given


def load_calibration(
    path: Path, opened: OpenNetwork, *, may_change: Iterable[str] = ()
) -> Calibration:
    """A calibration file, checked against the network it shall protect and the defense asked for.

    Args:
        path: the file.
        opened: the network.
        may_change: fields of the defense that the file need not agree on: it takes what was asked for.

    Raises:
        CalibrationError: damaged, or of another network, other weights, normalisation, input size or
            defense.
    """
    return fitting_calibration(calibrations.load(path), path, opened, may_change=may_change)


def fitting_calibration(
    calibration: Calibration, path: Path, opened: OpenNetwork, *, may_change: Iterable[str] = ()
) -> Calibration:
    """The checks of :func:`load_calibration`, of a file that was read already.

    Raises:
        CalibrationError: as there.
    """
    header = calibration.header
    pairs = (
        ("network", header.model, opened.entry.name),
        ("weights", header.weights_sha256[:12], opened.weights_sha256[:12]),
        ("normalisation", header.preprocess, opened.preprocess),
        ("input size", header.input_size, opened.input_size),
    )
    for what, calibrated, given in pairs:
        if calibrated != given:
            raise CalibrationError(
                f"The calibration {path} is for another {what} ({calibrated}, here {given}).",
                fix="Calibrate this network with zmask-export calibrate and fit, or give its own "
                "file with --calibration.",
            )
    changes = {}
    for name in sorted(opened.asked):
        calibrated, given = getattr(header.defense, name), getattr(opened.defense, name)
        if calibrated == given:
            continue
        if name not in may_change:
            raise CalibrationError(
                f"The calibration {path} has {name} {calibrated}, not {given} as asked for.",
                fix="Leave that out, or make another calibration: fit takes other kernels, grid and "
                "registration, calibrate other taps.",
            )
        changes[name] = given
    if not changes:
        return calibration
    return calibration.with_header(defense=changed_defense(header.defense, changes))

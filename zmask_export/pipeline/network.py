"""Opening a network: entry, preset, weights, normalisation, defense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from zmask_export import presets
from zmask_export.artifacts import calibration as calibrations
from zmask_export.artifacts.calibration import Calibration
from zmask_export.data.segmentation import CAMVID_CLASSES, CITYSCAPES_CLASSES
from zmask_export.errors import CalibrationError, UsageError
from zmask_export.models import registry, weights
from zmask_export.models.bare import BareNetwork, tap_paths
from zmask_export.models.detection import published
from zmask_export.models.detection.limits import apply_limits
from zmask_export.models.detection.network import DetectorNetwork, PlainDetector
from zmask_export.models.registry import ModelEntry
from zmask_export.models.taps import resolve
from zmask_export.spec import (
    PREPROCESS,
    DefenseSpec,
    DetectorLimits,
    Fill,
    Preprocess,
    Preset,
    Registration,
    Size,
    explain,
)

MOST_CLASSES = 256
"""Predictions are uint8."""


@dataclass(frozen=True)
class NetworkOptions:
    """What a user says about the network. None means: what the preset says.

    Attributes:
        model: registered name.
        preset: name or path of a preset.
        weights: checkpoint; "torchvision" for what torchvision publishes.
        random_weights: seeded random weights instead of a checkpoint.
        preprocess: name of a normalisation.
        input_size: (H, W).
        shallow, deep: taps.
        registration, fill, corners: see DefenseSpec.
        limits: of a detector.
    """

    model: str
    preset: str | None = None
    weights: Path | None = None
    random_weights: bool = False
    preprocess: str | None = None
    input_size: Size | None = None
    shallow: tuple[str, ...] = ()
    deep: tuple[str, ...] = ()
    registration: Registration | None = None
    fill: Fill | None = None
    corners: int | None = None
    limits: DetectorLimits = field(default_factory=DetectorLimits)


@dataclass(frozen=True)
class OpenNetwork:
    """A network ready to be calibrated, attacked or exported.

    Attributes:
        entry: what it is registered as.
        network: with its weights, in eval mode.
        classes: number of classes.
        preprocess: its normalisation.
        weights_sha256: fingerprint of the weights.
        input_size: (H, W).
        defense: of the preset, changed by what the user said.
        asked: the fields of ``defense`` that the user named, by option or by a preset.
        preset: where everything else comes from.
        shipped: the preset's files; none where the weights are not the preset's.
    """

    entry: ModelEntry
    network: nn.Module
    classes: int
    preprocess: Preprocess
    weights_sha256: str
    input_size: Size
    defense: DefenseSpec
    asked: frozenset[str]
    preset: Preset
    shipped: presets.Shipped

    def bare(self, defense: DefenseSpec | None = None) -> BareNetwork:
        """The bare network with the taps of a defense, its own by default."""
        paths = tap_paths(self.entry, (defense or self.defense).taps)
        return self.reading(paths)

    def reading(self, paths: dict[str, str]) -> BareNetwork:
        """The bare network with taps by module path."""
        kind = DetectorNetwork if self.entry.task == "detection" else BareNetwork
        return kind(self.network, self.preprocess, paths)

    def exportable(self, defense: DefenseSpec | None = None) -> BareNetwork:
        """The bare network in operators that every target has.

        Raises:
            UsageError, CompileError: see :class:`PlainDetector`.
        """
        bare = self.bare(defense)
        return PlainDetector(bare, self.input_size) if isinstance(bare, DetectorNetwork) else bare

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's own names where they are known, else CamVid's or Cityscapes' by their number."""
        if self.entry.class_names and len(self.entry.class_names) == self.classes:
            return self.entry.class_names
        for names in (CAMVID_CLASSES, CITYSCAPES_CLASSES):
            if self.classes == len(names):
                return names
        return tuple(f"class {index}" for index in range(self.classes))


def open_network(options: NetworkOptions) -> OpenNetwork:
    """Resolve the options against registry and preset, and load the weights.

    Raises:
        UsageError: unknown network, preset, tap or normalisation, or options that contradict.
        WeightsError: the checkpoint cannot be used.
    """
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
        preprocess = _preprocess(options.preprocess)
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
        defense=_defense(options, entry, shipped.preset),
        asked=_asked(options, shipped.preset),
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


def _preprocess(name: str) -> Preprocess:
    if name not in PREPROCESS:
        raise UsageError(
            f"There is no normalisation called {name!r}.",
            fix=f"Choose one of: {', '.join(PREPROCESS)}.",
        )
    return PREPROCESS[name]


def _defense(options: NetworkOptions, entry: ModelEntry, preset: Preset) -> DefenseSpec:
    try:
        defense = preset.defense(options.shallow or entry.shallow, options.deep or entry.deep)
    except ValidationError as exc:
        raise UsageError(
            f"The defense's settings are wrong: {explain(exc)}.", fix="Correct the preset."
        ) from exc
    changes = {
        "shallow": options.shallow or defense.shallow,
        "deep": options.deep or defense.deep,
        "registration": options.registration or defense.registration,
        "fill": options.fill or defense.fill,
        "corners": defense.corners if options.corners is None else options.corners,
    }
    return _changed(defense, changes)


def _asked(options: NetworkOptions, preset: Preset) -> frozenset[str]:
    fields = {"shallow", "deep", "registration", "fill", "corners"}
    asked = {name for name in fields if getattr(options, name) not in (None, ())}
    if options.preset is not None:
        asked |= {"shallow_kernels", "deep_kernels", "grid", "registration", "fill", "corners"}
        asked |= {name for name in ("shallow", "deep") if getattr(preset, name) is not None}
    return frozenset(asked)


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
    calibration = calibrations.load(path)
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
    return calibration.with_header(defense=_changed(header.defense, changes))


def _changed(defense: DefenseSpec, changes: Mapping[str, object]) -> DefenseSpec:
    try:
        return DefenseSpec.model_validate({**defense.model_dump(), **changes})
    except ValidationError as exc:
        raise UsageError(
            f"The defense's settings are wrong: {explain(exc)}.", fix="Correct the preset."
        ) from exc

"""Opening a network: entry, preset, weights, normalisation, defense."""

from __future__ import annotations

from dataclasses import dataclass
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
from zmask_export.models.registry import ModelEntry
from zmask_export.models.taps import resolve
from zmask_export.spec import (
    PREPROCESS,
    DefenseSpec,
    Fill,
    Preprocess,
    Preset,
    Registration,
    Size,
    explain,
)


@dataclass(frozen=True)
class NetworkOptions:
    """What a user says about the network. None means: what the preset says.

    Attributes:
        model: registered name.
        preset: name or path of a preset.
        weights: checkpoint.
        random_weights: seeded random weights instead of a checkpoint.
        preprocess: name of a normalisation.
        input_size: (H, W).
        shallow, deep: taps.
        registration, fill: see DefenseSpec.
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


@dataclass(frozen=True)
class OpenNetwork:
    """A network ready to be calibrated, attacked or exported."""

    entry: ModelEntry
    network: nn.Module
    classes: int
    preprocess: Preprocess
    weights_sha256: str
    input_size: Size
    defense: DefenseSpec
    preset: Preset
    shipped: presets.Shipped

    def bare(self, defense: DefenseSpec | None = None) -> BareNetwork:
        """The bare network with the taps of a defense, its own by default."""
        taps = (defense or self.defense).taps
        return BareNetwork(self.network, self.preprocess, tap_paths(self.entry, taps))

    @property
    def class_names(self) -> tuple[str, ...]:
        """CamVid's or Cityscapes' names where the number of classes is theirs."""
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
    path = options.weights or shipped.weights
    if options.random_weights:
        network, classes = weights.random_network(entry), entry.classes
    elif path is not None:
        network, classes = weights.load_network(entry, path)
    else:
        raise UsageError(
            f"The preset {options.preset!r} brings no weights.",
            fix="Give --weights FILE, or ask for --random-weights.",
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
        preset=shipped.preset,
        shipped=shipped,
    )
    # An unknown tap is refused here, before anything long starts.
    resolve(network, opened.bare().paths)
    return opened


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
        changes = {
            "shallow": options.shallow or defense.shallow,
            "deep": options.deep or defense.deep,
            "registration": options.registration or defense.registration,
            "fill": options.fill or defense.fill,
        }
        return DefenseSpec.model_validate(defense.model_dump() | changes)
    except ValidationError as exc:
        raise UsageError(
            f"The defense's settings are wrong: {explain(exc)}.", fix="Correct the preset."
        ) from exc


def load_calibration(path: Path, opened: OpenNetwork) -> Calibration:
    """A calibration file, checked against the network it shall protect.

    Raises:
        CalibrationError: damaged, or of another network, other weights, normalisation or input size.
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
    return calibration

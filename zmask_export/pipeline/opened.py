"""What is said about a network, and the network it leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from zmask_export import presets
from zmask_export.data.segmentation import CAMVID_CLASSES, CITYSCAPES_CLASSES
from zmask_export.errors import UsageError
from zmask_export.models.bare import BareNetwork, tap_paths
from zmask_export.models.detection.network import DetectorNetwork, PlainDetector
from zmask_export.models.registry import ModelEntry
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


@dataclass(frozen=True)
class NetworkOptions:
    """What a user says about the network. None means: what the preset says.

    Attributes:
        model: registered name; empty with ``module`` or ``onnx``.
        preset: name or path of a preset.
        weights: checkpoint; "torchvision" for what torchvision publishes.
        random_weights: seeded random weights instead of a checkpoint.
        preprocess: name of a normalisation.
        input_size: (H, W).
        shallow, deep: taps.
        registration, fill, corners: see DefenseSpec.
        limits: of a detector.
        module: ``package.module:factory`` of a network of the user's own.
        onnx: an ONNX file of the user's own.
        outputs: names for the outputs of a network of the user's own.
    """

    model: str = ""
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
    module: str | None = None
    onnx: Path | None = None
    outputs: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The option that names the network, as the command line takes it."""
        if self.module is not None:
            return f"--module {self.module}"
        return f"--model {self.model}" if self.onnx is None else f"--onnx {self.onnx}"

    @property
    def name(self) -> str:
        """A short name: the registered one, the file's, or module and factory."""
        if self.module is not None:
            return self.module.rpartition(".")[2].replace(":", "-")
        return self.model if self.onnx is None else self.onnx.stem


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
        reader: makes the bare network with taps by path, where it is one of the user's own.
        batch: images that the network takes at a time, or None for any number.
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
    reader: Callable[[dict[str, str]], BareNetwork] | None = None
    batch: int | None = None

    def bare(self, defense: DefenseSpec | None = None) -> BareNetwork:
        """The bare network with the taps of a defense, its own by default."""
        paths = tap_paths(self.entry, (defense or self.defense).taps)
        return self.reading(paths)

    def reading(self, paths: dict[str, str]) -> BareNetwork:
        """The bare network with taps by module path."""
        if self.reader is not None:
            return self.reader(paths)
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
        if self.entry.task == "other":
            return ()
        if self.entry.class_names and len(self.entry.class_names) == self.classes:
            return self.entry.class_names
        for names in (CAMVID_CLASSES, CITYSCAPES_CLASSES):
            if self.classes == len(names):
                return names
        return tuple(f"class {index}" for index in range(self.classes))

    def batch_of(self, asked: int | None) -> int | None:
        """The batch of a graph: what was asked for, or all that the network takes.

        Raises:
            UsageError: the network takes another one.
        """
        if self.batch is None or asked in (None, self.batch):
            return self.batch or asked
        raise UsageError(
            f"{self.entry.name} takes {self.batch} images at a time, not {asked}.",
            fix="Leave out --batch, or export the network for another batch.",
        )


def named_preprocess(name: str) -> Preprocess:
    """A normalisation by name.

    Raises:
        UsageError: there is none.
    """
    if name not in PREPROCESS:
        raise UsageError(
            f"There is no normalisation called {name!r}.",
            fix=f"Choose one of: {', '.join(PREPROCESS)}.",
        )
    return PREPROCESS[name]


def chosen_defense(
    options: NetworkOptions, preset: Preset, shallow: tuple[str, ...], deep: tuple[str, ...]
) -> DefenseSpec:
    """A preset's defense with the user's changes.

    Args:
        options: what the user said.
        preset: settings.
        shallow, deep: taps where neither names any.

    Raises:
        UsageError: they do not go together.
    """
    try:
        defense = preset.defense(options.shallow or shallow, options.deep or deep)
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
    return changed_defense(defense, changes)


def asked_fields(options: NetworkOptions, preset: Preset) -> frozenset[str]:
    """Fields of the defense that the user named, by option or by a preset."""
    fields = {"shallow", "deep", "registration", "fill", "corners"}
    asked = {name for name in fields if getattr(options, name) not in (None, ())}
    if options.preset is not None:
        asked |= {"shallow_kernels", "deep_kernels", "grid", "registration", "fill", "corners"}
        asked |= {name for name in ("shallow", "deep") if getattr(preset, name) is not None}
    return frozenset(asked)


def changed_defense(defense: DefenseSpec, changes: Mapping[str, object]) -> DefenseSpec:
    """A defense with other values in some fields.

    Raises:
        UsageError: they do not go together.
    """
    try:
        return DefenseSpec.model_validate({**defense.model_dump(), **changes})
    except ValidationError as exc:
        raise UsageError(
            f"The defense's settings are wrong: {explain(exc)}.", fix="Correct the preset."
        ) from exc

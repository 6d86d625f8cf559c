"""Opening a network of the user's own: a module by its factory, or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from zmask_export import presets
from zmask_export.errors import UsageError
from zmask_export.foreign import module_network, onnx_network
from zmask_export.foreign.factory import load_module
from zmask_export.foreign.module_network import ModuleNetwork
from zmask_export.foreign.onnx_file import read_onnx
from zmask_export.foreign.onnx_network import OnnxNetwork
from zmask_export.foreign.outputs import LOGITS, check_outputs, name_outputs
from zmask_export.foreign.preset import OwnPreset, own_preset
from zmask_export.foreign.suggest import require_taps
from zmask_export.models import weights
from zmask_export.models.bare import BareNetwork
from zmask_export.models.registry import ModelEntry
from zmask_export.pipeline.opened import (
    NetworkOptions,
    OpenNetwork,
    asked_fields,
    chosen_defense,
    named_preprocess,
)
from zmask_export.spec import PREPROCESS, DetectorLimits, Preprocess

Reader = Callable[[dict[str, str]], BareNetwork]


def open_foreign(options: NetworkOptions) -> OpenNetwork:
    """Open a network of the user's own and try it on noise; what cannot be protected is refused here.

    Raises:
        UsageError: no such factory, file, preset, tap or output, or options that have no use here.
        NetworkError: the user's code or file fails, or gives what an engine cannot hand on.
        ShapeError: a tap is no map.
    """
    _require_fitting(options)
    return _open_module(options, options.module) if options.module else _open_onnx(options)


def _open_module(options: NetworkOptions, path: str) -> OpenNetwork:
    preset = own_preset(_preset_path(options), options.input_size)
    network = load_module(path)
    preprocess = _preprocess(options, preset) or PREPROCESS["imagenet"]
    seen = module_network.observe(network, preprocess, preset.input_size, path)
    shallow, deep = options.shallow or preset.shallow or (), options.deep or preset.deep or ()
    require_taps(shallow, deep, seen.maps)
    module_network.check_taps(network, (*shallow, *deep), seen)
    named = name_outputs(seen.values, options.outputs or preset.outputs, path)
    check_outputs(seen.values, named, module_network.PROBE_BATCH)

    def reader(paths: dict[str, str]) -> BareNetwork:
        return ModuleNetwork(network, preprocess, paths, named, path)

    return _opened(
        options, preset, path, network, preprocess, weights.fingerprint(network), seen.values,
        named, reader, None,
    )  # fmt: skip


def _open_onnx(options: NetworkOptions) -> OpenNetwork:
    file = read_onnx(options.onnx or Path())
    preset = own_preset(_preset_path(options), options.input_size, file.size)
    preprocess = _preprocess(options, preset)
    if preprocess is None:
        raise UsageError(
            f"The ONNX file {file.path} does not say how its image is normalised.",
            fix="Give --preprocess unit (it takes [0, 1]), bytes ([0, 255]) or imagenet, or mean and std "
            "in a preset.",
        )
    shallow, deep = options.shallow or preset.shallow or (), options.deep or preset.deep or ()
    require_taps(shallow, deep, file.maps(preset.input_size))
    taps = tuple(dict.fromkeys((*shallow, *deep)))
    found, batch = onnx_network.try_out(file, preprocess, preset.input_size, taps)
    values = {name: found[name] for name in file.outputs}
    named = name_outputs(values, options.outputs or preset.outputs, file.path.name)
    check_outputs(values, named, batch)
    fixed = None if file.batch is None and batch > 1 else batch

    def reader(paths: dict[str, str]) -> BareNetwork:
        return OnnxNetwork(file, preprocess, paths, named, fixed)

    return _opened(
        options, preset, file.path.name, nn.Identity(), preprocess, file.sha256, values, named,
        reader, fixed,
    )  # fmt: skip


def _opened(
    options: NetworkOptions,
    preset: OwnPreset,
    name: str,
    network: nn.Module,
    preprocess: Preprocess,
    sha256: str,
    values: Mapping[str, Tensor],
    named: Mapping[str, str],
    reader: Reader,
    batch: int | None,
) -> OpenNetwork:
    segments = LOGITS in named
    classes = int(values[named[LOGITS]].shape[1]) if segments else 1
    if preset.classes and len(preset.classes) != classes:
        raise UsageError(
            f"The preset names {len(preset.classes)} classes, and {name} gives "
            f"{f'logits of {classes}' if segments else 'no logits'}.",
            fix="Correct classes in the preset, or name the output with the logits: --outputs logits.",
        )
    entry = ModelEntry(
        name=name,
        factory=lambda _: network,
        classes=classes,
        preprocess=preprocess,
        taps={},
        shallow=(),
        deep=(),
        min_side=1,
        classes_from="",
        task="segmentation" if segments else "other",
        class_names=preset.classes or tuple(f"class {index}" for index in range(classes)),
    )
    path = _preset_path(options)
    beside = Path() if path is None else path.parent
    return OpenNetwork(
        entry=entry,
        network=network,
        classes=classes,
        preprocess=preprocess,
        weights_sha256=sha256,
        input_size=preset.input_size,
        defense=chosen_defense(options, preset, (), ()),
        asked=asked_fields(options, preset),
        preset=preset,
        shipped=presets.Shipped(
            preset,
            None,
            None if preset.calibration is None else beside / preset.calibration,
            None if preset.patch is None else beside / preset.patch,
        ),
        reader=reader,
        batch=batch,
    )


def _require_fitting(options: NetworkOptions) -> None:
    given = {
        "--weights": options.weights is not None,
        "--random-weights": options.random_weights,
        "a limit of detections": options.limits != DetectorLimits(),
    }
    for what, there in given.items():
        if there:
            raise UsageError(
                f"A network of one's own has no use for {what}.",
                fix="Leave it out: the factory or the file brings the whole network.",
            )


def _preset_path(options: NetworkOptions) -> Path | None:
    if options.preset in presets.PAPER or options.preset == "paper":
        return presets.folder() / presets.PAPER.get(options.preset, presets.PAPER["segmentation"])
    return None if options.preset is None else Path(options.preset)


def _preprocess(options: NetworkOptions, preset: OwnPreset) -> Preprocess | None:
    if options.preprocess is not None:
        return named_preprocess(options.preprocess)
    return preset.preprocess

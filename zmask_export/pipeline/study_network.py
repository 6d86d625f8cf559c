"""One network of a study, opened: its subjects, and what identifies each of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zmask_export.artifacts.files import sha256_file
from zmask_export.calibrate.rivals import measure_rivals
from zmask_export.data.images import ImageFolder
from zmask_export.defense.baselines.fpda import Fpda
from zmask_export.defense.baselines.lgs import LocalGradientsSmoothing
from zmask_export.defense.baselines.masknet import load_masknet
from zmask_export.defense.zmask import ZMask
from zmask_export.errors import BundleError, CalibrationError, UsageError
from zmask_export.evaluate import subjects
from zmask_export.evaluate.plan import DETECTORS, LeftOut, missing
from zmask_export.evaluate.study import DetectorSource, NetworkStudy
from zmask_export.evaluate.subjects import Network, Subject
from zmask_export.models.bare import tap_paths
from zmask_export.models.taps import Taps
from zmask_export.pipeline.evaluate_data import digest, task_of
from zmask_export.pipeline.network import (
    NetworkOptions,
    OpenNetwork,
    load_calibration,
    open_network,
)
from zmask_export.pipeline.progress import Reporter
from zmask_export.runtime.choice import ONNX_FILE
from zmask_export.runtime.protected import load
from zmask_export.spec import Policy, Size, Task


@dataclass(frozen=True)
class Entry:
    """A subject that is opened when it is first needed, and what decides its outcomes (JSON)."""

    identity: dict[str, Any]
    open: Callable[[], Subject]


@dataclass(frozen=True)
class StudyNetwork:
    """A network ready to be measured.

    Attributes:
        network: runs bare and defended.
        model: registered name.
        task: what it predicts.
        source: "bundle" or "reference".
        runner: what runs it.
        classes: their names.
        input_size: (H, W).
        entries: subject to its entry.
        left_out: rivals whose files are absent.
    """

    network: Network
    model: str
    task: Task
    source: str
    runner: str
    classes: tuple[str, ...]
    input_size: Size
    entries: dict[str, Entry]
    left_out: tuple[LeftOut, ...]


def absent(study: NetworkStudy, *, reference: bool) -> str | None:
    """Why a network cannot be opened: the file or setting that is not there; None where it can."""
    if reference and study.model is None:
        return "the study names no model for the reference"
    if not reference and study.bundle is None:
        return "the study names no bundle; pass --reference to measure the PyTorch reference"
    paths = [] if reference or study.bundle is None else [study.bundle]
    if reference:
        paths += [path for path in (study.weights, study.calibration) if path is not None]
    return next((missing(path) for path in paths if not path.exists()), None)


def open_study_network(
    study: NetworkStudy, root: Path, *, reference: bool, reporter: Reporter
) -> StudyNetwork:
    """Open a network and its rivals.

    Args:
        study: which files.
        root: the data set's folder.
        reference: measure the PyTorch reference, not the bundle.
        reporter: shows the pass that HN and FPDA need, when it comes to it.

    Raises:
        UsageError: the bundle never masks.
        BundleError: damaged, or not of the model that the study names.
        WeightsError, CalibrationError, DatasetError: a file cannot be used.
    """
    opened = None
    if reference or study.detectors is not None:
        opened = _open_model(study)
    base = _reference(study, opened) if reference and opened else _bundle(study, opened)
    entries, left_out = dict(base.entries), []
    if study.lgs:
        lgs = subjects.module_filter(LocalGradientsSmoothing())
        entries["lgs"] = _behind(base, {"filter": "lgs 15 5 0.1 2.3"}, lgs)
    if study.masknet is not None and not study.masknet.is_file():
        left_out.append(LeftOut(what="rival MaskNet", why=missing(study.masknet)))
    elif study.masknet is not None:
        masknet = subjects.module_filter(load_masknet(study.masknet).protect)
        entries["masknet"] = _behind(base, {"filter": sha256_file(study.masknet)}, masknet)
    if study.detectors is not None and opened is not None:
        folder = study.detectors.folder(root)
        if folder.is_dir():
            entries[DETECTORS] = rival_detectors(study.detectors, folder, opened, reporter)
        else:
            left_out.append(LeftOut(what="rivals HN, FPDA", why=missing(folder)))
    return StudyNetwork(**{**vars(base), "entries": entries, "left_out": tuple(left_out)})


def _open_model(study: NetworkStudy) -> OpenNetwork:
    return open_network(
        NetworkOptions(model=study.model or "", preset=study.preset, weights=study.weights)
    )


def _bundle(study: NetworkStudy, opened: OpenNetwork | None) -> StudyNetwork:
    if study.bundle is None:
        raise UsageError("The study names no bundle.", fix="Name one, or pass --reference.")
    engine = load(study.bundle, backend="onnxruntime")  # what the builds were verified with
    manifest = engine.manifest
    if manifest.policy is Policy.DETECT:
        raise UsageError(
            f"The bundle {study.bundle} of policy detect never masks.",
            fix="Build with --policy gated or mask.",
        )
    if opened is not None and opened.weights_sha256 != manifest.weights_sha256:
        raise BundleError(
            f"The bundle {study.bundle} holds other weights than the study's model.",
            fix="Name in the study the weights that the bundle was built from.",
        )
    network = subjects.EngineNetwork(engine)
    identity = {
        "source": "bundle",
        "graph": manifest.files[ONNX_FILE].sha256,
        "threshold": manifest.threshold,
        "colour": network.colour,
        "runner": engine.runner.name,
    }
    return StudyNetwork(
        network, manifest.model, task_of(manifest), "bundle", engine.runner.name, manifest.classes,
        manifest.input_size, _entries(network, identity), (),
    )  # fmt: skip


def _reference(study: NetworkStudy, opened: OpenNetwork) -> StudyNetwork:
    path = study.calibration or opened.shipped.calibration
    if path is None:
        raise CalibrationError(
            f"The preset of {opened.entry.name} brings no calibration.",
            fix="Name one in the study.",
        )
    calibration = load_calibration(path, opened)
    bare = opened.bare(calibration.header.defense)
    network = subjects.ReferenceNetwork(ZMask(bare, calibration))
    identity = {
        "source": "reference",
        "weights": opened.weights_sha256,
        "calibration": calibration.sha256(),
    }
    runner = f"torch {torch.__version__.partition('+')[0]}"
    return StudyNetwork(
        network, opened.entry.name, opened.entry.task, "reference", runner, opened.class_names,
        opened.input_size, _entries(network, {**identity, "runner": runner}), (),
    )  # fmt: skip


def _entries(network: Network, identity: dict[str, Any]) -> dict[str, Entry]:
    makers = {
        "none": subjects.undefended,
        "zmask": subjects.defended,
        "oracle": subjects.oracle,
    }
    return {
        name: Entry({**identity, "subject": name}, functools.partial(maker, network))
        for name, maker in makers.items()
    }


def _behind(base: StudyNetwork, identity: dict[str, Any], function: subjects.Filter) -> Entry:
    return Entry(
        {**base.entries["none"].identity, **identity},
        functools.partial(subjects.filtered, base.network, function),
    )


def rival_detectors(
    source: DetectorSource, folder: Path, opened: OpenNetwork, reporter: Reporter
) -> Entry:
    """HN and FPDA as one subject, which takes their statistics when it is opened.

    Args:
        source: which layer and how many images.
        folder: clean images.
        opened: the network.
        reporter: shows the pass over the images.
    """
    images = ImageFolder(folder, opened.input_size, limit=source.limit)
    tap = source.tap or deepest(opened)
    bare = opened.reading(tap_paths(opened.entry, (tap,)))

    def measured() -> Subject:
        with reporter.bar("HN, FPDA", len(images)) as advance:
            rivals = measure_rivals(bare, images, tap, on_image=advance)
        fpda = rivals.fpda
        scorers = {
            "hn": rivals.hyperneuron,
            "fpda": fpda,
            "fpda+": Fpda(fpda.mean, fpda.std, positive=True),
        }
        return subjects.detectors(bare, tap, scorers)

    identity = {
        "subject": DETECTORS,
        "weights": opened.weights_sha256,
        "preprocess": opened.preprocess.model_dump(mode="json"),
        "size": opened.input_size,
        "tap": tap,
        "images": digest(images.paths),
    }
    return Entry(identity, measured)


def deepest(opened: OpenNetwork) -> str:
    """The tap of D that HN and FPDA read: the coarsest map, of equals the one that runs last."""
    paths = tap_paths(opened.entry, opened.defense.deep)
    with torch.inference_mode(), Taps(opened.network, paths) as taps:
        opened.reading(paths).predict(torch.zeros(1, 3, *opened.input_size))
    areas = {tap: h.shape[2] * h.shape[3] for tap, h in taps.features.items()}
    smallest = min(areas.values())
    return [tap for tap, area in areas.items() if area == smallest][-1]

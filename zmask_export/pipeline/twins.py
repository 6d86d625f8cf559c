"""verify --data: a bundle of lower precision beside the same network in float32, on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zmask_export.attack import patch as patches
from zmask_export.attack.placement import require_fits
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.errors import UsageError
from zmask_export.evaluate.subjects import EngineNetwork
from zmask_export.export.bare import export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.pipeline.evaluate_data import open_labelled, task_of
from zmask_export.pipeline.network import NetworkOptions
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.pipeline.verify import open_bundle
from zmask_export.runtime.choice import of_graph
from zmask_export.runtime.protected import Protected
from zmask_export.verify.twins import TwinReport, compare_twins


@dataclass(frozen=True)
class TwinOptions:
    """What to compare on.

    Attributes:
        network: the network the bundle was built from.
        data: data set with label maps, or for a detector with boxes.
        patch: patch to attack with; the shipped one where None.
        split: of the data set.
        limit: at most this many images, spread evenly.
        seed: of the patch's places.
        verify_key: public key that the bundle must be signed with.
    """

    network: NetworkOptions
    data: Path
    patch: Path | None = None
    split: str = "val"
    limit: int | None = None
    seed: int = 0
    verify_key: Path | None = None


def verify_twins(
    bundle: Path, options: TwinOptions, *, reporter: Reporter | None = None
) -> TwinReport:
    """Compare a bundle with its float32 twin, which is fused here of the same network and calibration.

    Raises:
        UsageError: the bundle is float32 itself, or there is no patch.
        BundleError, CalibrationError, DatasetError, PatchError.
    """
    reporter = reporter or Silent()
    bundled = open_bundle(bundle, options.network, options.verify_key)
    engine, opened, manifest = bundled.engine, bundled.opened, bundled.engine.manifest
    if manifest.precision in ("fp32", "tf32"):
        raise UsageError(
            f"The graph of {bundle} is float32 itself.",
            fix="Leave out --data, or give a bundle of --precision fp16, bf16 or int8.",
        )
    path = options.patch or opened.shipped.patch
    if path is None:
        raise UsageError("There is no patch to attack with.", fix="Give one with --patch.")
    attack = patches.load(path)
    require_fits((attack.shape[1], attack.shape[2]), manifest.input_size)
    labelled = open_labelled(
        options.data, options.split, task=task_of(manifest), classes=len(manifest.classes),
        size=manifest.input_size, limit=options.limit,
    )  # fmt: skip
    defense = bundled.calibration.header.defense
    bare = export_bare(opened.exportable(defense), opened.input_size, manifest.batch)
    twin = fuse(bare, bundled.calibration, FuseOptions(manifest.policy)).to_bytes()
    full = Protected(manifest, of_graph(manifest, OnnxRuntimeRunner(twin)))
    with reporter.bar("comparing", len(labelled.samples)) as advance:
        return compare_twins(
            EngineNetwork(engine),
            EngineNetwork(full),
            labelled.samples,
            labelled.task,
            attack,
            precision=manifest.precision,
            tolerances=manifest.tolerances,
            seed=options.seed,
            on_image=advance,
        )

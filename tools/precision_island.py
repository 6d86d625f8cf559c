"""Which parts of Z-Mask have to stay float32: rounds them to 16 bits, in turn, and compares.

    python tools/precision_island.py engines/icnet --data CAMVID --patch calib/icnet/patch.png

takes a float32 bundle. Every row is one set of parts, of which every operator's result and every constant
is rounded. It is held against the bundle itself, by the contract of ``zmask-export verify --data``.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import onnx
import onnx_ir as ir

from zmask_export.attack import patch as patches
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.rounding import rounded_parts
from zmask_export.evaluate.subjects import EngineNetwork
from zmask_export.pipeline.evaluate_data import open_labelled, task_of
from zmask_export.presets import find
from zmask_export.runtime.choice import ONNX_FILE, of_graph
from zmask_export.runtime.protected import Protected, load_checked
from zmask_export.verify.twins import TwinReport, compare_twins

TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
SETS = (("zscore",), ("cascade",), ("fusion",), ("zscore", "fusion"))


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--patch", type=click.Path(path_type=Path), required=True)
@click.option("--split", default="val", show_default=True)
@click.option("--limit", type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True)
def main(
    bundle: Path, data: Path, patch: Path, split: str, limit: int | None, as_json: bool
) -> None:
    """Round parts of a float32 bundle and print what it costs."""
    engine, checked = load_checked(bundle)
    manifest = engine.manifest
    preset = find(manifest.model).preset
    proto = onnx.load_model_from_string(checked.read(ONNX_FILE))
    labelled = open_labelled(
        data, split, task=task_of(manifest), classes=len(manifest.classes),
        size=manifest.input_size, limit=limit,
    )  # fmt: skip
    for precision, short in TYPES.items():
        for parts in SETS:
            model = rounded_parts(proto, parts, short).SerializeToString()
            report = compare_twins(
                EngineNetwork(Protected(manifest, of_graph(manifest, OnnxRuntimeRunner(model)))),
                EngineNetwork(engine),
                labelled.samples,
                labelled.task,
                patches.load(patch),
                precision=precision,  # type: ignore[arg-type]
                tolerances=preset.contract(precision),  # type: ignore[arg-type]
            )
            click.echo(_json(parts, report) if as_json else _row(parts, report))


def _json(parts: tuple[str, ...], report: TwinReport) -> str:
    record = {"parts": parts, "problems": report.problems}
    return json.dumps(record | json.loads(report.model_dump_json()))


def _row(parts: tuple[str, ...], report: TwinReport) -> str:
    worst, median = report.score_error
    iou = "-" if report.mask_iou is None else f"{report.mask_iou[0]:.4f}"
    return (
        f"{report.precision} {'+'.join(parts):<16} AUC {report.auc[0]:.4f} {report.metric} "
        f"{report.clean[0]:.4f} {report.patched[0]:.4f} flips {len(report.flips)} "
        f"score {worst:.1e} {median:.1e} mask IoU {iou} {'; '.join(report.problems) or 'holds'}"
    )


if __name__ == "__main__":
    main()

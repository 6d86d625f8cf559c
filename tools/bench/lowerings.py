"""The planner's cost model against measurement: does it rank the forms of each tap rightly?

    python tools/bench/lowerings.py --model icnet --preset paper --rounds 5

Builds the forms of every tap's cascade as graphs of their own, runs them in turns in ONNX Runtime, and
prints as JSON, a tap: Spearman's correlation of estimated and measured times, and how much slower the
chosen form is than the quickest one (1 = it is the quickest).
"""

from __future__ import annotations

import json

import click
import numpy as np
import onnx_ir as ir
from measuring.machine import describe

from zmask_export.backends.runner import cores
from zmask_export.export.bare import OPSET
from zmask_export.fuse.builder import GraphBuilder
from zmask_export.fuse.cascade import emit_heatmaps
from zmask_export.fuse.plan import TapPlan
from zmask_export.pipeline.network import NetworkOptions, open_network
from zmask_export.pipeline.plan import plan_network
from zmask_export.profiling.sessions import bound, open_session
from zmask_export.profiling.timing import spread, take_turns
from zmask_export.spec import Size


def cascade_graph(plan: TapPlan, grid: Size) -> bytes:
    """An ONNX file from z-scores ``z`` (1, C, h, w) to one heatmap a branch."""
    z = ir.Value(name="z", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, *plan.shape]))
    graph = ir.Graph([z], [], nodes=[], name="cascade", opset_imports={"": OPSET})
    build = GraphBuilder(graph)
    batch = build.op("cascade", "Shape", [z], {"start": 0, "end": 1})
    for branch, heatmap in emit_heatmaps(build, plan, z, batch, grid).items():
        heatmap.name = branch
        heatmap.type = ir.TensorType(ir.DataType.FLOAT)
        heatmap.shape = ir.Shape([1, 1, *grid])
        graph.outputs.append(heatmap)
    model = ir.Model(graph, ir_version=10)
    return ir.serde.serialize_model(model).SerializeToString()


def measure(plans: list[TapPlan], grid: Size, rounds: int, threads: int) -> list[float]:
    """Median seconds of each form; the forms take turns."""
    z = np.random.default_rng(0).standard_normal((1, *plans[0].shape), dtype=np.float32)
    runs = {
        index: bound(open_session(cascade_graph(plan, grid), threads), {"z": z})
        for index, plan in enumerate(plans)
    }
    return [spread(taken).median / 1e3 for taken in take_turns(runs, rounds).values()]


def rank_correlation(left: list[float], right: list[float]) -> float:
    """Spearman's rho of two lists; 0 where one has no spread."""
    first, second = (np.argsort(np.argsort(values)) for values in (left, right))
    return float(np.corrcoef(first, second)[0, 1]) if len(left) > 1 else 0.0


@click.command(context_settings={"show_default": True})
@click.option("--model", default="icnet")
@click.option("--preset")
@click.option("--most", default=16, help="Forms a tap, spread evenly over the estimates.")
@click.option("--rounds", default=5)
@click.option("--threads", default=0, help="0: one a core.")
def main(model: str, preset: str | None, most: int, rounds: int, threads: int) -> None:
    """Measure and print the record as JSON."""
    threads = threads or cores()
    opened = open_network(NetworkOptions(model, preset=preset, random_weights=True))
    found = plan_network(opened)
    taps = {}
    for chosen in found.taps:
        forms = list(found.others[chosen.tap])
        picked = sorted({round(i) for i in np.linspace(0, len(forms) - 1, most)})
        some = [forms[i] for i in picked if forms[i].lowering != chosen.lowering]
        plans = [chosen, *some]
        measured = measure(plans, opened.defense.grid, rounds, threads)
        estimated = [plan.cost.seconds for plan in plans]
        taps[chosen.tap] = {
            "rank_correlation": rank_correlation(estimated, measured),
            "chosen_over_quickest": measured[0] / min(measured),
            "quickest": str(plans[int(np.argmin(measured))].lowering),
            "forms": [
                {"form": str(p.lowering), "estimated_ms": e * 1e3, "measured_ms": m * 1e3}
                for p, e, m in zip(plans, estimated, measured, strict=True)
            ],
        }
    record = {
        "model": model,
        "preset": preset,
        "taps": taps,
        "machine": describe(threads).model_dump(),
    }
    click.echo(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()

"""What the protection costs: bare against protected, side by side, in one run.

    python tools/bench/protection.py --model icnet --preset paper --out bench.json --plot bench.png

Measures, all in turns: the bare network and every policy, on a clean and on an attacked frame, batch 1 and
4, in ONNX Runtime on the CPU and on CUDA, in PyTorch eager and with ``torch.compile``, and as TensorRT
engines where a GPU runs them; where the time goes, part by part; the cascade stage as written against as
deployed, and the floor that the machine sets it; the memory that engines need; how the cost grows over
resolution, channels and taps. Prints tables and the bars that a release should keep. What cannot be
measured here is named with its reason. ``--only`` takes some sections alone; ``--help`` lists them.

An attacked frame is one whose threshold every score exceeds, a clean one is one whose threshold none does:
that chooses the branch of the gate and changes nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from measuring.command import exit_code
from overhead.graphs import build_graphs, calibration_for, open_for_timing
from overhead.plot import draw
from overhead.run import SECTIONS, Settings, measure
from overhead.tables import show

from zmask_export.artifacts.files import require_writable, write_bytes
from zmask_export.cli.console import table_console
from zmask_export.cli.options import network_from, network_options
from zmask_export.profiling.machine import cores

ROUNDS, QUICK_ROUNDS = 15, 1
BATCHES = (1, 4)
SECTION = click.Choice(list(SECTIONS))
EPILOG = "\b\nSections:\n" + "\n".join(f"  {name:10}{what}" for name, what in SECTIONS.items())

_FILE = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True}, epilog=EPILOG)
@network_options
@click.option("--calibration", type=_FILE, help="Default: the shipped one, else a quick one.")
@click.option("--out", type=_FILE, help="JSON file to write.")
@click.option("--plot", "picture", type=_FILE, help="PNG file to draw.")
@click.option("--quick", is_flag=True, help="A little of everything: is all in place?")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help=f"Of every turn, after a warm-up. Default: {ROUNDS}; quick: {QUICK_ROUNDS}.",
)
@click.option(
    "--literal-rounds",
    default=3,
    type=click.IntRange(1),
    help="Of the literal cascade, which takes minutes at the paper's size.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(1, 64),
    help="Images a run; repeatable. Default: 1 and 4; quick: 1.",
)
@click.option("--threads", default=0, type=click.IntRange(0), help="0: one a core.")
@click.option("--only", multiple=True, type=SECTION, help="Section to take alone.")
@click.option("--skip", multiple=True, type=SECTION, help="Section to leave out.")
def main(**options: Any) -> None:
    """Measure what the protection costs, and print it beside its bars."""
    network = network_from(options)
    out, picture, quick = options["out"], options["picture"], options["quick"]
    for path in filter(None, (out, picture)):
        require_writable(path)
    settings = Settings(
        rounds=options["rounds"] or (QUICK_ROUNDS if quick else ROUNDS),
        literal_rounds=1 if quick else options["literal_rounds"],
        batches=options["batches"] or (BATCHES[:1] if quick else BATCHES),
        threads=options["threads"] or cores(),
        sections=frozenset(options["only"] or SECTIONS) - frozenset(options["skip"]),
        quick=quick,
    )
    opened = open_for_timing(network)
    click.echo("exporting and fusing", err=True)
    graphs = build_graphs(opened, calibration_for(opened, options["calibration"]))
    record = measure(graphs, settings, preset=network.preset or network.model)
    if out is not None:
        write_bytes(out, record.model_dump_json(indent=1).encode())
    if picture is not None:
        write_bytes(picture, draw(record))
    show(record, table_console())


if __name__ == "__main__":
    sys.exit(exit_code(main))

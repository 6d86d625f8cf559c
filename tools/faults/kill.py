"""Kill verbs at random moments, again and again, and hold what is left against an undisturbed run.

    python tools/faults/kill.py --verb all --kills 50
    python tools/faults/kill.py --verb craft --kills 200 --seed 7 --json

Every verb runs through its entry point in a process of its own, which SIGKILL ends: at a moment drawn
over the duration of an undisturbed run, a third of them then wait for a write, a quarter spare what the
verb started. After each kill nothing broken may be visible and nothing that was there may be gone. The
next start takes what the last one left, until the result is there: it must be the undisturbed one, byte
for byte, with nothing beside it. Exit code 1 where something was found; the folder lies in --finds.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click
from killing.campaign import Campaign, Tally
from killing.cases import VERBS, cases
from killing.inputs import Inputs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from zmask_export.backends import tensorrt
from zmask_export.cli.console import table_console

KILLS = 50
COUNTS = ("kills", "nothing", "kept", "writing", "resumed", "completed")
FAULTS = ("broken", "lost", "uncaught", "left")


@contextlib.contextmanager
def bar(verb: str, kills: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; what it yields takes the kills so far."""
    columns = (
        TextColumn(f"{verb:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as progress:
        task = progress.add_task(verb, total=kills)
        yield lambda done: progress.update(task, completed=done)


def show(tallies: list[Tally]) -> None:
    """Print the outcome for people."""
    table = Table("verb")
    for name in (*COUNTS, *FAULTS, "seconds"):
        table.add_column(name, justify="right")
    for tally in tallies:
        found = [str(len(getattr(tally, name))) for name in FAULTS]
        counts = [str(getattr(tally, name)) for name in COUNTS]
        table.add_row(tally.verb, *counts, *found, f"{tally.seconds:.0f}")
    console = table_console()
    console.print(table)
    for tally in tallies:
        for fault in tally.faults:
            console.print(fault)


@click.command(context_settings={"show_default": True})
@click.option("--verb", "verbs", default="all", type=click.Choice([*VERBS, "all"]))
@click.option("--kills", default=KILLS, type=click.IntRange(1), help="Of each verb.")
@click.option("--seed", default=1, type=click.IntRange(0), help="Of the moments.")
@click.option("--no-compiler", is_flag=True, help="Build no engines.")
@click.option(
    "--finds", default="finds", type=click.Path(path_type=Path), help="Folders that show a fault."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a verb.")
def main(verbs: str, kills: int, seed: int, no_compiler: bool, finds: Path, as_json: bool) -> None:
    """Kill verbs at random moments."""
    # Of all that is started from here: forks are made of one thread, and find the modules beside this one.
    os.environ["OMP_NUM_THREADS"] = "1"
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    compiler = not no_compiler and tensorrt.available("tensorrt-rtx") is None
    tallies = []
    for verb in VERBS if verbs == "all" else (verbs,):
        with tempfile.TemporaryDirectory() as name, bar(verb, kills) as on_kill:
            (place := Path(name) / "inputs").mkdir()
            campaign = Campaign(Path(name), seed, finds)
            victims = cases(verb, Inputs(place), campaign.result, compiler=compiler)
            tallies.append(campaign.run(verb, victims, kills, on_kill))
        if as_json:
            click.echo(json.dumps(asdict(tallies[-1])))
    if not as_json:
        show(tallies)
    sys.exit(any(tally.faults for tally in tallies))


if __name__ == "__main__":
    main()

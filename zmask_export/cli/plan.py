"""zmask-export plan."""

from __future__ import annotations

import json
from typing import Any

import click

from zmask_export.cli.options import as_json, network_from, network_options


@click.command("plan")
@network_options
@click.option(
    "--for",
    "machine",
    type=click.Choice(["cpu", "gpu", "small-gpu"]),
    default="cpu",
    show_default=True,
    help="What runs the cascade: ONNX Runtime on a CPU; TensorRT; TensorRT with little memory.",
)
@click.option("--all", "everything", is_flag=True, help="Show the forms that were not chosen too.")
@as_json
def command(machine: Any, everything: bool, as_json: bool, **network: Any) -> None:
    """Show how each tap's cascade is lowered, and what it costs.

    The forms are exact; a cost model of multiply-adds, bytes and operators chooses the quickest one whose
    maps fit. Times are estimates that rank forms, not promises.

    \b
    Examples:
      zmask-export plan --model icnet
      zmask-export plan --model icnet --preset paper --random-weights --all
    """
    from zmask_export.pipeline.network import open_network
    from zmask_export.pipeline.plan import plan_network

    found = plan_network(open_network(network_from(network)), machine)
    if as_json:
        click.echo(json.dumps(found.record(everything=everything)))
    else:
        _show(found, everything)


def _show(found: Any, everything: bool) -> None:
    from rich.table import Table

    from zmask_export.cli.console import table_console

    table = Table(title=f"Cascades, one image, planned for {found.machine}")
    table.add_column("tap", overflow="fold")
    table.add_column("map", no_wrap=True)
    table.add_column("form", overflow="fold")
    for name in (
        "M madd",
        "MB moved",
        "calls",
        "MB scratch",
        "MB weights",
        "est. ms",
        "Eq. 3 M add",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for plan in found.taps:
        forms = found.others[plan.tap] if everything else (plan,)
        for form in forms:
            chosen = form.lowering == plan.lowering
            cost = form.cost
            table.add_row(
                plan.tap if chosen else "",
                "x".join(map(str, plan.shape)) if chosen else "",
                f"{form.lowering}{' (chosen)' if everything and chosen else ''}",
                f"{cost.multiply_adds / 1e6:.0f}",
                f"{cost.bytes / 1e6:.0f}",
                str(cost.calls),
                f"{cost.scratch_bytes / 1e6:.1f}",
                f"{cost.weight_bytes / 1e6:.2f}",
                f"{cost.seconds * 1e3:.1f}",
                f"{found.literal[plan.tap] / 1e6:.0f}" if chosen else "",
            )
    console = table_console()
    console.print(table)
    total = sum(plan.multiply_adds for plan in found.taps)
    console.print(
        f"{total / 1e9:.2f} G multiply-adds in place of {sum(found.literal.values()) / 1e9:.0f} G additions"
    )

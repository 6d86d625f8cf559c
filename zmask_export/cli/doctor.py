"""zmask-export doctor."""

from __future__ import annotations

from typing import Any

import click

from zmask_export.cli.options import as_json


@click.command("doctor")
@as_json
def command(as_json: bool) -> None:
    """Say what this machine can build and run, and for each "no" how to get it.

    Changes nothing and fetches nothing; the exit code is 0 whatever is missing.

    \b
    Examples:
      zmask-export doctor
      zmask-export doctor --json
    """
    from zmask_export.pipeline.doctor import diagnose

    found = diagnose()
    if as_json:
        click.echo(found.model_dump_json())
    else:
        _show(found)


def _show(found: Any) -> None:
    from rich.table import Table

    from zmask_export.cli.console import table_console

    console = table_console()
    table = Table(title="What is here", title_justify="left")
    for name in ("", "what", "here", "says", "how to get it"):
        table.add_column(name, overflow="fold")
    group = None
    for finding in found.findings:
        if group not in (None, finding.group):
            table.add_section()
        label = "" if finding.group == group else finding.group
        group = finding.group
        here = "yes" if finding.ok else "no"
        table.add_row(label, finding.what, here, finding.says, finding.fix or "")
    console.print(table)
    table = Table(title="What can be done here", title_justify="left")
    table.add_column("")
    table.add_column("works")
    for what, works in found.can.items():
        table.add_row(what, "yes" if works else "no")
    console.print(table)

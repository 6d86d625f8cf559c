"""How a benchmark's command ends."""

from __future__ import annotations

import click

from zmask_export.errors import ZMaskError


def exit_code(command: click.Command) -> int:
    """Run a command; errors of ours become two lines and their exit code.

    Args:
        command: what it returns is its exit code; None stands for 0.
    """
    try:
        return command.main(standalone_mode=False) or 0
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        return 130
    except ZMaskError as exc:
        click.echo(f"Error: {exc}", err=True)
        return exc.exit_code

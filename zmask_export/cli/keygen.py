"""zmask-export keygen."""

from __future__ import annotations

import json
from pathlib import Path

import click

from zmask_export.cli.options import PATH, as_json


@click.command("keygen")
@click.argument("out", type=PATH)
@as_json
def command(out: Path, as_json: bool) -> None:
    """Make a pair of Ed25519 keys: OUT signs bundles, OUT.pub checks them.

    OUT is private: PEM, not encrypted, readable by you alone. Keep it off the machines that run bundles.
    No file is replaced.

    \b
    Examples:
      zmask-export keygen release
      zmask-export build --model icnet --sign-key release
      zmask-export run engines/icnet street.png --verify-key release.pub
    """
    from zmask_export.artifacts.signature import generate

    public = generate(out)
    if as_json:
        click.echo(json.dumps({"private": str(out), "public": str(public)}))
    else:
        click.echo(f"{out}: private, signs bundles\n{public}: public, for --verify-key")

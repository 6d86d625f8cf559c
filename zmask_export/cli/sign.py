"""zmask-export sign."""

from __future__ import annotations

import json
from pathlib import Path

import click

from zmask_export.cli.options import PATH, as_json, verify_key


@click.command("sign")
@click.argument("bundle", type=PATH)
@click.option("--key", type=PATH, required=True, help="Private key of keygen.")
@verify_key
@as_json
def command(bundle: Path, key: Path, verify_key: Path | None, as_json: bool) -> None:
    """Sign a built bundle: writes manifest.sig beside its manifest, once every file of it was checked.

    The signature covers the manifest's bytes, and through its hashes every other file. What another key
    signed is signed again only where --verify-key gives that key's public half.

    \b
    Examples:
      zmask-export sign engines/icnet --key release
      zmask-export sign engines/icnet --key new --verify-key release.pub
    """
    from zmask_export.pipeline.rewrite import sign_bundle

    manifest = sign_bundle(bundle, key, verify_key=verify_key)
    if as_json:
        click.echo(json.dumps({"bundle": str(bundle), "files": sorted(manifest.files)}))
    else:
        click.echo(f"{bundle}: signed, {len(manifest.files)} files under it")

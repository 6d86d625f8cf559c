"""A bundle's folder: opened, held against its manifest, and read once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from zmask_export.artifacts import signature
from zmask_export.artifacts.folder import Folder
from zmask_export.artifacts.manifest import (
    FILE_NAME,
    MAX_BYTES,
    SCHEMA_VERSION,
    UNLISTED,
    Manifest,
)
from zmask_export.artifacts.signature import SIGNATURE_FILE, KeySource
from zmask_export.errors import BundleError
from zmask_export.spec import explain


def is_bundle(folder: Path) -> bool:
    """Whether a folder is empty, or holds a manifest and nothing that the manifest does not list."""
    if not folder.is_dir():
        return False
    try:
        with Folder(folder) as opened:
            present = opened.names()
            if not present:
                return True
            manifest = Manifest.model_validate_json(opened.read(FILE_NAME, MAX_BYTES))
    except (OSError, ValidationError):
        return False
    return present <= UNLISTED | manifest.files.keys()


@dataclass(frozen=True)
class CheckedBundle:
    """A bundle whose every file was read once, and held against its manifest.

    Attributes:
        folder: where it was found.
        manifest, manifest_bytes: what it is, and the content of manifest.json.
        signature: the content of manifest.sig; None where there is none.
        verified: whether the signature was checked, and holds.
        kept: the very bytes that were hashed, of files that were asked for.
    """

    folder: Path
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes | None
    verified: bool
    kept: dict[str, bytes]

    def read(self, name: str) -> bytes:
        """The bytes of a file that was kept.

        Raises:
            BundleError: the bundle has none of that name.
        """
        if name not in self.kept:
            raise BundleError(f"The bundle {self.folder} has no {name}.", fix="Build it again.")
        return self.kept[name]


def open_bundle(
    folder: Path,
    keep: Callable[[Manifest], Iterable[str]] = lambda _: (),
    *,
    verify_key: KeySource | None = None,
) -> CheckedBundle:
    """Read a bundle: check every file of it against its manifest, and the manifest against a signature.

    Nothing but the manifest is parsed, and that only after its signature held. Every file is read once,
    through the folder that was opened first: what changes on disk meanwhile is noticed, or not seen.

    Args:
        folder: the bundle.
        keep: from the manifest to the files whose bytes the caller wants.
        verify_key: public key that it must be signed with; None takes signed and unsigned ones.

    Raises:
        BundleError: no bundle, not signed with the key, or a damaged, missing, changed or extra file.
        InputError: ``verify_key`` is no such key.
        BackendUnavailableError: there is a key, but the package cryptography is not here.
    """
    key = None if verify_key is None else signature.key_bytes(verify_key)
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(Folder(folder))
            data = opened.read(FILE_NAME, MAX_BYTES)
        except OSError as exc:
            raise _no_bundle(folder) from exc
        if len(data) > MAX_BYTES:
            raise _bad(folder, "has a manifest of enormous size")
        present = opened.names()
        signed = signature.read(opened) if SIGNATURE_FILE in present else None
        if key is not None:
            signature.require(folder, key, signed, data)
        manifest = _parse(folder, data)
        for name in sorted((present - UNLISTED) ^ manifest.files.keys()):
            said = "lacks the file" if name not in present else "has an extra file"
            raise _bad(folder, f"{said} {name if name.isprintable() else ascii(name)}")
        wanted = frozenset(keep(manifest))
        kept = {}
        for name, info in manifest.files.items():
            try:
                content = opened.check(name, info.bytes, info.sha256, keep=name in wanted)
            except OSError as exc:
                raise _bad(folder, f"has something else than a file called {name}") from exc
            except ValueError as exc:
                raise _bad(folder, f"has a changed file {name}") from exc
            if content is not None:
                kept[name] = content
    return CheckedBundle(folder, manifest, data, signed, key is not None, kept)


def read_manifest(folder: Path) -> Manifest:
    """:func:`open_bundle`, where only the manifest is wanted."""
    return open_bundle(folder).manifest


def _parse(folder: Path, data: bytes) -> Manifest:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise _no_bundle(folder) from exc
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as exc:
        raise _bad(folder, f"has a damaged manifest ({explain(exc)})") from exc
    if manifest.schema_version != SCHEMA_VERSION:
        raise _bad(folder, f"has schema version {manifest.schema_version}, not {SCHEMA_VERSION}")
    if not manifest.explains(data):
        raise _bad(folder, "has a damaged manifest (its checksum is another)")
    return manifest


def _no_bundle(folder: Path) -> BundleError:
    return BundleError(
        f"{folder} is no bundle: it has no readable {FILE_NAME}.",
        fix="Give the folder that zmask-export build wrote.",
    )


def _bad(folder: Path, what: str) -> BundleError:
    return BundleError(f"The bundle {folder} {what}.", fix="Build it again, or copy it again.")

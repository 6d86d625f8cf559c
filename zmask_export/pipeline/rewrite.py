"""A built bundle with other files or another signature, in its place whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zmask_export.artifacts import signature
from zmask_export.artifacts.bundle import CheckedBundle, open_bundle
from zmask_export.artifacts.files import new_directory
from zmask_export.artifacts.manifest import FILE_NAME, Manifest, describe
from zmask_export.artifacts.signature import SIGNATURE_FILE, KeySource, Signer
from zmask_export.errors import BundleError, UsageError


def require_signer(bundle: Path, sign_key: Path | None) -> Signer | None:
    """What signs a bundle whose files are to change.

    Args:
        bundle: which.
        sign_key: private key; None where nothing is to be signed.

    Raises:
        UsageError: the bundle is signed, and there is no key.
        InputError: it is no such key.
        BackendUnavailableError: the package cryptography is not here.
    """
    if sign_key is not None:
        return Signer(sign_key)
    if os.path.lexists(bundle / SIGNATURE_FILE):
        raise UsageError(
            f"The bundle {bundle} is signed, and other files need a new signature.",
            fix="Give the private key with --sign-key, or write the files beside the bundle.",
        )
    return None


def sign_bundle(bundle: Path, sign_key: Path, *, verify_key: KeySource | None = None) -> Manifest:
    """Sign a built bundle, or sign it again.

    Args:
        bundle: which; every file of it is checked.
        sign_key: private key.
        verify_key: public key that it is signed with now; None where it is not signed, or with the same.

    Raises:
        BundleError: no bundle, one that was changed, or one that another key signed.
        InputError: a key is none.
        OutputError: it cannot be written.
        BackendUnavailableError: the package cryptography is not here.
    """
    return rewrite(bundle, {}, Signer(sign_key), verify_key=verify_key)


def rewrite(
    bundle: Path,
    files: dict[str, str],
    signer: Signer | None,
    *,
    verify_key: KeySource | None = None,
) -> Manifest:
    """Put files into a bundle, in the place of older ones, with a manifest that holds their hashes.

    The bundle is replaced as a whole: whoever opens it meanwhile finds the old one or the new one. What
    is signed already must hold under the key that signs it again, so that a changed bundle never gets a
    good signature.

    Args:
        bundle: which.
        files: name to content. Where empty, the manifest stays as it is, to the byte.
        signer: signs the new manifest; None for a bundle that is not signed.
        verify_key: public key of the signature that is there; None takes the signer's own.

    Raises:
        BundleError: it was changed since it was built, or another key signed it.
        UsageError: it is signed, and there is no signer.
        OutputError: it cannot be written.
    """
    whole = bundle.resolve()
    checked = open_bundle(whole, verify_key=verify_key)
    _require_same_signer(checked, signer)
    manifest, data = checked.manifest, checked.manifest_bytes
    with new_directory(whole, force=True) as folder:
        for name in manifest.files:
            if name not in files:
                _take(whole / name, folder / name)
        # The hashes that were checked stay: a file that changes now must not get a new one.
        infos = dict(manifest.files)
        for name, text in files.items():
            (folder / name).write_bytes(text.encode())
            infos[name] = describe(text.encode())
        if files:
            changed = {"files": dict(sorted(infos.items()))}
            manifest = manifest.model_copy(update=changed).sealed()
            data = manifest.to_bytes()
        (folder / FILE_NAME).write_bytes(data)
        if signer is not None:
            (folder / SIGNATURE_FILE).write_bytes(signer.sign(data))
        open_bundle(folder)
    return manifest


def _require_same_signer(bundle: CheckedBundle, signer: Signer | None) -> None:
    if bundle.signature is None:
        return
    if signer is None:
        require_signer(bundle.folder, None)
    elif not bundle.verified and not signature.holds(
        signer.public(), bundle.signature, bundle.manifest_bytes
    ):
        raise BundleError(
            f"The bundle {bundle.folder} is signed with another key, or was changed since.",
            fix="Give the public key that it was signed with by --verify-key.",
        )


def _take(source: Path, target: Path) -> None:
    """A second name for the same bytes, or a copy where the disk has no such names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, RuntimeError):  # the second where a system cannot link links
        shutil.copyfile(source, target, follow_symlinks=False)

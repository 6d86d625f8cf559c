"""Ed25519 signatures of a bundle's manifest, through the package cryptography (the extra ``sign``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmask_export.artifacts.files import require_writable, write_new
from zmask_export.artifacts.folder import Folder
from zmask_export.errors import BackendUnavailableError, BundleError, InputError, OutputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

KeySource = str | Path | bytes
"""A public key: the path of its PEM file, the bytes of that file, or its 32 raw bytes."""
SIGNATURE_FILE = "manifest.sig"
"""Lies beside the manifest: the 64 bytes of an Ed25519 signature of the manifest's bytes, raw."""
_SIGNATURE_BYTES = 64
_KEY_BYTES = 32
_MAX_BYTES = 64 << 10


class Signer:
    """Signs with a private key.

    Args:
        path: PEM file of an unencrypted Ed25519 private key, such as ``keygen`` writes.

    Raises:
        InputError: it cannot be read, or is no such key.
        BackendUnavailableError: the package cryptography is not here.
    """

    def __init__(self, path: Path) -> None:
        self._key = _private(path, _read(path))

    def sign(self, data: bytes) -> bytes:
        """The signature of ``data``, 64 bytes; equal data give equal signatures."""
        return self._key.sign(data)

    def public(self) -> bytes:
        """The public half, 32 raw bytes: what :func:`holds` takes."""
        return self._key.public_key().public_bytes_raw()


def generate(out: Path) -> Path:
    """Make a pair of keys: ``out`` (private, mode 0600) and ``out`` with ``.pub`` added.

    Returns:
        The public key's file.

    Raises:
        OutputError: one of them exists, or cannot be written; neither is left behind.
        BackendUnavailableError: the package cryptography is not here.
    """
    serialization, ed25519 = _cryptography()
    public = out.with_name(f"{out.name}.pub")
    for path in (out, public):
        require_writable(path)
        if path.exists() or path.is_symlink():
            raise OutputError(
                f"{path} exists already, and a key is never replaced.", fix="Choose another name."
            )
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_new(out, private, mode=0o600)
    try:
        write_new(
            public,
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            mode=0o644,
        )
    except OutputError:
        out.unlink()
        raise
    return public


def key_bytes(source: KeySource) -> bytes:
    """The bytes of a public key that :func:`holds` takes, checked.

    Raises:
        InputError: its file cannot be read, or it is no Ed25519 public key.
        BackendUnavailableError: the package cryptography is not here.
    """
    data = source if isinstance(source, bytes) else _read(Path(source))
    _public("given" if isinstance(source, bytes) else str(source), data)
    return data


def holds(key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether a signature of ``data`` was made with the private half of a key.

    Args:
        key: of :func:`key_bytes`.
        signature: 64 bytes.
        data: what was signed, all of it.

    Raises:
        InputError: no Ed25519 public key.
        BackendUnavailableError: the package cryptography is not here.
    """
    public = _public("given", key)
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def read(bundle: Folder) -> bytes:
    """The signature file of a bundle.

    Raises:
        BundleError: it is no plain file, or not as long as a signature.
    """
    try:
        data = bundle.read(SIGNATURE_FILE, _SIGNATURE_BYTES)
    except OSError as exc:
        raise BundleError(
            f"The bundle {bundle.path} has something else than a file called {SIGNATURE_FILE}.",
            fix="Copy it again, or sign it again.",
        ) from exc
    if len(data) != _SIGNATURE_BYTES:
        raise BundleError(
            f"The bundle {bundle.path} has a damaged signature: {SIGNATURE_FILE} is not "
            f"{_SIGNATURE_BYTES} bytes long.",
            fix="Copy it again, or sign it again.",
        )
    return data


def require(bundle: Path, key: bytes, signature: bytes | None, manifest: bytes) -> None:
    """Refuse a bundle whose manifest is not signed with a key.

    Args:
        bundle: for messages.
        key: of :func:`key_bytes`.
        signature: what lies beside the manifest; None where nothing does.
        manifest: its bytes.

    Raises:
        BundleError: it is not signed, or with another key, or was changed since.
    """
    if signature is None:
        raise BundleError(
            f"The bundle {bundle} is not signed.",
            fix="Get it from who signs it, or sign it yourself with zmask-export sign.",
        )
    if not holds(key, signature, manifest):
        raise BundleError(
            f"The bundle {bundle} is not signed with this key, or was changed since.",
            fix="Do not use it: get the bundle and the public key again from who signed it.",
        )


def _cryptography() -> tuple[Any, Any]:
    """The modules ``serialization`` and ``ed25519``."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as exc:
        raise BackendUnavailableError(
            "The package cryptography is not installed, which signatures need.",
            fix="Install it: pip install 'zmask-export[sign]'.",
        ) from exc
    return serialization, ed25519


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as exc:
        raise InputError(
            f"The key {path} cannot be read ({exc.strerror or exc}).",
            fix="Give a key file that zmask-export keygen wrote.",
        ) from exc


def _private(path: Path, data: bytes) -> Ed25519PrivateKey:
    serialization, ed25519 = _cryptography()
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as exc:
        raise InputError(
            f"The key {path} is protected by a passphrase.",
            fix="Decrypt it for the signing, such as with openssl pkey.",
        ) from exc
    except Exception as exc:  # the package names several, OpenSSL's among them
        raise _no_key(str(path), "private", "the file that keygen wrote, not its .pub") from exc
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _no_key(str(path), "private", "the file that keygen wrote")
    return key


def _public(name: str, data: bytes) -> Ed25519PublicKey:
    serialization, ed25519 = _cryptography()
    if len(data) == _KEY_BYTES:
        return ed25519.Ed25519PublicKey.from_public_bytes(data)
    try:
        key = serialization.load_pem_public_key(data)
    except Exception as exc:  # the package names several, OpenSSL's among them
        raise _no_key(name, "public", "the .pub file that keygen wrote") from exc
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _no_key(name, "public", "the .pub file that keygen wrote")
    return key


def _no_key(name: str, half: str, wanted: str) -> InputError:
    return InputError(f"The key {name} is no Ed25519 {half} key in PEM.", fix=f"Give {wanted}.")

"""What users read of keys and signatures: every sentence, word for word."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.artifacts.test_words import Refusal, assert_says
from zmask_export.artifacts import signature
from zmask_export.artifacts.folder import Folder
from zmask_export.artifacts.signature import Signer, generate, holds, key_bytes
from zmask_export.errors import BackendUnavailableError, BundleError, InputError, OutputError

pytest.importorskip("cryptography", reason="the extra sign is not installed")

WROTE = "Give a key file that zmask-export keygen wrote."
NOT_PRIVATE = "is no Ed25519 private key in PEM."
NOT_PUBLIC = "is no Ed25519 public key in PEM."
PUBLIC_FIX = "Give the .pub file that keygen wrote."


def _elliptic(folder: Path) -> tuple[Path, Path]:
    """A pair of keys of another kind."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "ec").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "ec.pub").write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return folder / "ec", folder / "ec.pub"


def _locked(folder: Path) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    (folder / "locked").write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return folder / "locked"


KEYS: dict[str, Refusal] = {
    "no private key": (
        lambda f: Signer(f / "none"),
        "The key @/none cannot be read (No such file or directory).",
        WROTE,
    ),
    "a folder as key": (
        lambda f: key_bytes(f),
        "The key @ cannot be read (Is a directory).",
        WROTE,
    ),
    "a public key to sign with": (
        lambda f: Signer(generate(f / "k")),
        f"The key @/k.pub {NOT_PRIVATE}",
        "Give the file that keygen wrote, not its .pub.",
    ),
    "a passphrase": (
        lambda f: Signer(_locked(f)),
        "The key @/locked is protected by a passphrase.",
        "Decrypt it for the signing, such as with openssl pkey.",
    ),
    "another kind of private key": (
        lambda f: Signer(_elliptic(f)[0]),
        f"The key @/ec {NOT_PRIVATE}",
        "Give the file that keygen wrote.",
    ),
    "another kind of public key": (
        lambda f: key_bytes(_elliptic(f)[1]),
        f"The key @/ec.pub {NOT_PUBLIC}",
        PUBLIC_FIX,
    ),
    "a private key to check with": (
        lambda f: key_bytes(generate(f / "k").with_suffix("")),
        f"The key @/k {NOT_PUBLIC}",
        PUBLIC_FIX,
    ),
    "a short key": (lambda _: key_bytes(b"\0" * 31), f"The key given {NOT_PUBLIC}", PUBLIC_FIX),
    "a long key": (
        lambda _: holds(b"\0" * 33, b"\0" * 64, b""),
        f"The key given {NOT_PUBLIC}",
        PUBLIC_FIX,
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_refused_key(case: str, tmp_path: Path) -> None:
    assert_says(KEYS[case], tmp_path, InputError)


@pytest.mark.parametrize("there", ["k", "k.pub"])
def test_a_key_in_the_way(there: str, tmp_path: Path) -> None:
    (tmp_path / there).touch()
    refusal = (
        lambda f: generate(f / "k"),
        f"@/{there} exists already, and a key is never replaced.",
        "Choose another name.",
    )
    assert_says(refusal, tmp_path, OutputError)


def _read(folder: Path) -> bytes:
    with Folder(folder) as opened:
        return signature.read(opened)


def _require(folder: Path, signed: bytes | None, data: bytes) -> None:
    signature.require(folder, key_bytes(folder / "k.pub"), signed, data)


SIGN_AGAIN = "Copy it again, or sign it again."
SIGNATURES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a folder": (
        lambda f: ((f / "manifest.sig").mkdir(), _read(f)),
        "has something else than a file called manifest.sig.",
        SIGN_AGAIN,
    ),
    "one byte too few": (
        lambda f: ((f / "manifest.sig").write_bytes(b"\0" * 63), _read(f)),
        "has a damaged signature: manifest.sig is not 64 bytes long.",
        SIGN_AGAIN,
    ),
    "one byte too many": (
        lambda f: ((f / "manifest.sig").write_bytes(b"\0" * 65), _read(f)),
        "has a damaged signature: manifest.sig is not 64 bytes long.",
        SIGN_AGAIN,
    ),
    "none": (
        lambda f: _require(f, None, b"x"),
        "is not signed.",
        "Get it from who signs it, or sign it yourself with zmask-export sign.",
    ),
    "of other bytes": (
        lambda f: _require(f, Signer(f / "k").sign(b"y"), b"x"),
        "is not signed with this key, or was changed since.",
        "Do not use it: get the bundle and the public key again from who signed it.",
    ),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_a_refused_signature(case: str, tmp_path: Path) -> None:
    generate(tmp_path / "k")
    act, what, fix = SIGNATURES[case]
    assert_says((act, f"The bundle @ {what}", fix), tmp_path, BundleError)


def test_a_machine_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    refusal = (
        lambda f: generate(f / "k"),
        "The package cryptography is not installed, which signatures need.",
        "Install it: pip install 'zmask-export[sign]'.",
    )
    assert_says(refusal, tmp_path, BackendUnavailableError)

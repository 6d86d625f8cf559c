from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.artifacts.test_manifest import _manifest
from tests.conftest import contents
from zmask_export.artifacts.bundle import open_bundle
from zmask_export.artifacts.manifest import FILE_NAME
from zmask_export.artifacts.signature import (
    SIGNATURE_FILE,
    Signer,
    generate,
    holds,
    key_bytes,
)
from zmask_export.errors import BackendUnavailableError, BundleError, InputError, OutputError

pytest.importorskip("cryptography", reason="the extra sign is not installed")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("keys") / "release"
    assert generate(out) == out.with_name("release.pub")
    return out


@pytest.fixture(scope="module")
def public(key: Path) -> bytes:
    return key_bytes(key.with_name("release.pub"))


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=300), at=st.integers(0, 363), change=st.integers(1, 255))
def test_a_signature_holds_for_its_bytes_alone(
    key: Path, public: bytes, data: bytes, at: int, change: int
) -> None:
    signature = Signer(key).sign(data)
    assert len(signature) == 64
    assert signature == Signer(key).sign(data)
    assert holds(public, signature, data)
    both = bytearray(signature + data)
    both[at % len(both)] ^= change
    assert not holds(public, bytes(both[:64]), bytes(both[64:]))
    assert not holds(public, signature, data + b"\0")


def test_the_standard_s_own_example_holds() -> None:
    """RFC 8032, 7.1, test 2."""
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert holds(key_bytes(public), signature, b"\x72")
    assert not holds(public, signature, b"\x73")


def test_a_key_comes_as_path_file_or_raw_bytes(key: Path, public: bytes) -> None:
    signature = Signer(key).sign(b"x")
    path = key.with_name("release.pub")
    for source in (path, str(path), path.read_bytes(), Signer(key).public()):
        assert holds(key_bytes(source), signature, b"x")


def test_another_key_does_not_hold(key: Path, tmp_path: Path) -> None:
    other = key_bytes(generate(tmp_path / "other"))
    assert not holds(other, Signer(key).sign(b"x"), b"x")


def test_a_bundle_opens_with_its_key_or_with_none(key: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "graph").write_bytes(b"graph")
    data = _manifest(bundle).to_bytes()
    (bundle / FILE_NAME).write_bytes(data)
    mine, other = key.with_name("release.pub"), generate(tmp_path / "other")
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle, verify_key=mine)
    assert caught.value.what == f"The bundle {bundle} is not signed."
    signed = Signer(key).sign(data)
    (bundle / SIGNATURE_FILE).write_bytes(signed)
    for verify_key in (mine, None):
        opened = open_bundle(bundle, verify_key=verify_key)
        assert (opened.signature, opened.verified) == (signed, verify_key is not None)
        assert (opened.manifest_bytes, opened.folder) == (data, bundle)
    with pytest.raises(BundleError, match="not signed with this key"):
        open_bundle(bundle, verify_key=other)


def test_the_private_key_is_the_owner_s_alone(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"PRIVATE" not in key.with_name("release.pub").read_bytes()
    assert contents(key.parent) == ["release", "release.pub"]


def test_the_modes_of_a_pair_are_exact(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        public = generate(tmp_path / "deep" / "key")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (public.with_suffix(""), public)]
    assert modes == [0o600, 0o644]


def test_a_private_key_does_not_stay_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    make = Ed25519PrivateKey.generate

    def meanwhile() -> Ed25519PrivateKey:
        (tmp_path / "key.pub").write_text("theirs")
        return make()

    monkeypatch.setattr(Ed25519PrivateKey, "generate", meanwhile)
    with pytest.raises(OutputError, match=r"key\.pub cannot be written"):
        generate(tmp_path / "key")
    assert contents(tmp_path) == ["key.pub"]
    assert (tmp_path / "key.pub").read_text() == "theirs"


def test_a_key_is_looked_for_in_64_kib(key: Path, public: bytes, tmp_path: Path) -> None:
    data = key.with_name("release.pub").read_bytes()
    (tmp_path / "inside").write_bytes(data.rjust(64 << 10, b"\n"))
    (tmp_path / "beyond").write_bytes(data.rjust((64 << 10) + 2, b"\n"))
    assert key_bytes(tmp_path / "inside").strip() == public.strip()
    with pytest.raises(InputError, match="no Ed25519 public"):
        key_bytes(tmp_path / "beyond")


@pytest.mark.parametrize("there", ["release", "release.pub"])
def test_no_key_is_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(OutputError, match=f"{there} exists already"):
        generate(tmp_path / "release")
    assert contents(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "release").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="exists already"):
        generate(tmp_path / "release")
    assert contents(tmp_path) == ["release"]


def test_what_is_no_key_is_refused(key: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    (tmp_path / "empty").touch()
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 400)
    other = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "ec").write_bytes(
        other.private_bytes(pem, pkcs8, serialization.NoEncryption())
    )  # fmt: skip
    (tmp_path / "ec.pub").write_bytes(
        other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    locked = serialization.BestAvailableEncryption(b"secret")
    (tmp_path / "locked").write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, locked)
    )
    for name in ("empty", "noise", "ec", "locked", "missing", "."):
        with pytest.raises(InputError, match=r"no Ed25519 private|passphrase|cannot be read"):
            Signer(tmp_path / name)
    for path in (*(tmp_path / n for n in ("empty", "noise", "ec.pub", "missing", ".")), key):
        with pytest.raises(InputError, match=r"no Ed25519 public|cannot be read"):
            key_bytes(path)
    with pytest.raises(InputError, match="no Ed25519 public"):
        key_bytes(b"\0" * 31)


def test_without_the_package_the_error_says_what_to_install(
    key: Path, public: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    for use in (
        lambda: Signer(key),
        lambda: holds(public, b"\0" * 64, b""),
        lambda: generate(tmp_path / "new"),
    ):
        with pytest.raises(BackendUnavailableError, match="cryptography is not") as caught:
            use()
        assert "pip install 'zmask-export[sign]'" in caught.value.fix
    assert contents(tmp_path) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_openssl_agrees(key: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"manifest")
    (tmp_path / "sig").write_bytes(Signer(key).sign(b"manifest"))
    command = [
        "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", f"{key}.pub", "-rawin",
        "-in", "data", "-sigfile", "sig",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Signature Verified Successfully" in done.stdout, done.stderr
    (tmp_path / "data").write_bytes(b"Manifest")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0

"""Signed bundles: a key opens its own and refuses every other, before anything is parsed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import zmask_export
from tests.conftest import Inputs, assert_refused, contents, link_tree, zmask
from zmask_export.artifacts.bundle import open_bundle, read_manifest
from zmask_export.artifacts.signature import Signer
from zmask_export.errors import BundleError, UsageError
from zmask_export.pipeline.rewrite import rewrite
from zmask_export.runtime import choice

pytest.importorskip("cryptography", reason="the extra sign is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys ``mine`` and ``other``."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        outcome = zmask("keygen", folder / name, "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.record["public"] == str(folder / f"{name}.pub")
    return folder


@pytest.fixture
def signed(detect_bundle: Path, keys: Path, tmp_path: Path) -> Path:
    copy = link_tree(detect_bundle, tmp_path / "signed")
    outcome = zmask("sign", copy, "--key", keys / "mine")
    assert outcome.code == 0, outcome.err
    return copy


def _rewrite(path: Path, data: bytes) -> None:
    """Replace a linked file without touching the original's bytes."""
    path.unlink()
    path.write_bytes(data)


def test_signing_adds_the_signature_and_nothing_else(
    signed: Path, detect_bundle: Path, keys: Path, tmp_path: Path
) -> None:
    added = {path.name for path in signed.iterdir()} - {p.name for p in detect_bundle.iterdir()}
    assert added == {"manifest.sig"}
    manifest = (signed / "manifest.json").read_bytes()
    assert manifest == (detect_bundle / "manifest.json").read_bytes()
    assert (signed / "manifest.sig").read_bytes() == Signer(keys / "mine").sign(manifest)
    assert contents(tmp_path) == sorted(["signed", *(f"signed/{n}" for n in contents(signed))])


def test_its_key_opens_it_and_none_is_needed(signed: Path, keys: Path, inputs: Inputs) -> None:
    public = keys / "mine.pub"
    for key in (None, public, str(public), public.read_bytes()):
        with zmask_export.load(signed, verify_key=key) as engine:
            assert engine.manifest == read_manifest(signed)
    outcome = zmask("run", signed, inputs.image, "--verify-key", public)
    assert outcome.code == 0, outcome.err
    for options, said in (((), "not checked"), (("--verify-key", public), "holds")):
        assert zmask("inspect", signed, *options, "--json").record["signature"] == said


def test_an_unsigned_bundle_says_so(detect_bundle: Path) -> None:
    assert zmask("inspect", detect_bundle, "--json").record["signature"] == "none"


def _reformat(bundle: Path) -> None:
    record = json.loads((bundle / "manifest.json").read_text())
    _rewrite(bundle / "manifest.json", json.dumps(record).encode())


def _other_file(bundle: Path) -> None:
    _rewrite(bundle / "parity.json", b"{}")
    manifest = read_manifest_of(bundle)
    manifest["files"]["parity.json"] = {
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "bytes": 2,
    }
    del manifest["checksum"]
    _rewrite(bundle / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
    open_bundle(bundle)  # a whole bundle, but for its signature


def read_manifest_of(bundle: Path) -> dict[str, dict[str, object]]:
    record: dict[str, dict[str, object]] = json.loads((bundle / "manifest.json").read_text())
    return record


def _link_signature(bundle: Path) -> None:
    moved = (bundle / "manifest.sig").rename(bundle.parent / "moved")
    (bundle / "manifest.sig").symlink_to(moved)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no signature": (lambda b: (b / "manifest.sig").unlink(), "is not signed"),
    "a manifest of other bytes": (_reformat, "not signed with this key, or was changed since"),
    "a manifest with another file's hash": (_other_file, "not signed with this key"),
    "a manifest that is no JSON": (
        lambda b: _rewrite(b / "manifest.json", b"[" * 100_000),
        "not signed with this key",
    ),
    "an empty manifest": (
        lambda b: _rewrite(b / "manifest.json", b""),
        "not signed with this key",
    ),
    "a signature of zeros": (
        lambda b: _rewrite(b / "manifest.sig", b"\0" * 64),
        "not signed with this key",
    ),
    "a short signature": (lambda b: _rewrite(b / "manifest.sig", b"\0" * 63), "64 bytes"),
    "a long signature": (lambda b: _rewrite(b / "manifest.sig", b"\0" * 65), "64 bytes"),
    "a signature that is a link": (_link_signature, "something else than a file"),
    "a changed graph": (
        lambda b: _rewrite(b / "protected.onnx", b"x"),
        "has a changed file protected.onnx",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_bundle_is_refused_before_it_is_parsed(
    case: str, signed: Path, keys: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, word = SPOILT[case]
    spoil(signed)
    parsed: list[bytes] = []
    monkeypatch.setattr(choice, "OnnxRuntimeRunner", lambda model, **_: parsed.append(model))
    refused = zmask("run", signed, inputs.image, "--verify-key", keys / "mine.pub")
    assert_refused(refused, 4, word)
    assert parsed == []


def test_every_verb_refuses_another_key(
    signed: Path, keys: Path, inputs: Inputs, tmp_path: Path
) -> None:
    before = contents(tmp_path)
    for verb, *options in (
        ("run", inputs.image),
        ("inspect",),
        ("verify", *inputs.random),
        ("evaluate", "--data", inputs.camvid, "--patch", inputs.patch),
        ("triton", tmp_path / "models"),
        ("profile", "--out", tmp_path / "profile"),
        ("profile", "--add", "--sign-key", keys / "other"),
    ):
        refused = zmask(verb, signed, *options, "--verify-key", keys / "other.pub")
        assert_refused(refused, 4, "not signed with this key")
    assert contents(tmp_path) == before


def test_what_is_no_public_key_is_refused(signed: Path, keys: Path, inputs: Inputs) -> None:
    run = ("run", signed, inputs.image, "--verify-key")
    assert_refused(zmask(*run, keys / "mine"), 4, "no Ed25519 public key", ".pub")
    assert_refused(zmask(*run, keys / "none.pub"), 4, "cannot be read")
    assert_refused(zmask(*run, keys), 4, "cannot be read")


def test_a_study_takes_no_key(keys: Path, tmp_path: Path) -> None:
    study = ("evaluate", "--study", tmp_path / "s.yaml", "--verify-key", keys / "mine.pub")
    assert_refused(zmask(*study), 2, "--verify-key does not go with --study")


def test_a_signed_bundle_changes_only_with_a_key(signed: Path, keys: Path) -> None:
    assert_refused(zmask("profile", signed, "--add"), 2, "is signed", "--sign-key")
    assert_refused(zmask("profile", signed, "--sign-key", keys / "mine"), 2, "--add")
    with pytest.raises(UsageError, match="is signed"):
        rewrite(signed, {"latency.json": "{}"}, None)
    with pytest.raises(BundleError, match="signed with another key"):
        rewrite(signed, {"latency.json": "{}"}, Signer(keys / "other"))
    manifest = rewrite(signed, {"latency.json": "{}"}, Signer(keys / "mine"))
    opened = open_bundle(signed, verify_key=keys / "mine.pub")
    assert opened.manifest == manifest
    assert "latency.json" in manifest.files


def test_another_key_signs_again_only_with_the_old_one_s_public_half(
    signed: Path, keys: Path
) -> None:
    again = ("sign", signed, "--key", keys / "other")
    assert_refused(zmask(*again), 4, "signed with another key", "--verify-key")
    outcome = zmask(*again, "--verify-key", keys / "mine.pub", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.record["files"] == sorted(read_manifest(signed).files)
    open_bundle(signed, verify_key=keys / "other.pub")
    with pytest.raises(BundleError, match="not signed with this key"):
        open_bundle(signed, verify_key=keys / "mine.pub")


def test_a_changed_bundle_is_not_signed(detect_bundle: Path, keys: Path, tmp_path: Path) -> None:
    copy = link_tree(detect_bundle, tmp_path / "copy")
    _rewrite(copy / "protected.onnx", b"x")
    before = contents(tmp_path)
    assert_refused(zmask("sign", copy, "--key", keys / "mine"), 4, "changed file protected.onnx")
    assert_refused(zmask("sign", copy, "--key", keys / "mine.pub"), 4, "no Ed25519 private key")
    assert contents(tmp_path) == before


_opened: Counter[str] = Counter()
_watching: list[str] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watching:
        name = str(arguments[0]).rpartition("/")[2]
        if name in _watching:
            _opened[name] += 1


sys.addaudithook(_watch)


@pytest.mark.parametrize("verb", ["run", "inspect", "verify", "triton"])
def test_every_file_is_opened_once(
    verb: str, signed: Path, keys: Path, inputs: Inputs, tmp_path: Path
) -> None:
    options = {
        "run": (inputs.image,),
        "inspect": (),
        "verify": (*inputs.random, "--count", 1),
        "triton": (tmp_path / "models",),
    }[verb]
    names = contents(signed)
    _opened.clear()
    _watching.extend(names)
    try:
        outcome = zmask(verb, signed, *options, "--verify-key", keys / "mine.pub")
    finally:
        _watching.clear()
    assert outcome.code == 0, outcome.err
    assert _opened == dict.fromkeys(names, 1)

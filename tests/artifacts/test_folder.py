"""Bundles that change while they are read, and files that are no files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.artifacts.test_manifest import _manifest
from zmask_export.artifacts import folder as folders
from zmask_export.artifacts.bundle import CheckedBundle, open_bundle
from zmask_export.artifacts.folder import Folder
from zmask_export.artifacts.manifest import FILE_NAME, Manifest
from zmask_export.errors import BundleError

needs_descriptors = pytest.mark.skipif(
    not folders.RELATIVE, reason="this system opens files by their path alone"
)


def _bundle(folder: Path, graph: bytes = b"graph" * 100) -> Path:
    folder.mkdir()
    (folder / "protected.onnx").write_bytes(graph)
    (folder / "a.engine").write_bytes(b"engine")
    (folder / FILE_NAME).write_text(_manifest(folder).model_dump_json())
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return _bundle(tmp_path / "bundle")


def _opened(folder: Path, meanwhile: Callable[[], object] = lambda: None) -> CheckedBundle:
    """Open a bundle; ``meanwhile`` comes after its manifest was read, and before its other files are."""

    def keep(manifest: Manifest) -> list[str]:
        meanwhile()
        return [name for name in manifest.files if name.endswith(".onnx")]

    return open_bundle(folder, keep)


def test_what_is_handed_out_is_what_was_hashed(bundle: Path) -> None:
    opened = _opened(bundle)
    (bundle / "protected.onnx").write_bytes(b"wicked" * 100)
    graph = opened.read("protected.onnx")
    assert graph == b"graph" * 100
    info = opened.manifest.files["protected.onnx"]
    assert (hashlib.sha256(graph).hexdigest(), len(graph)) == (info.sha256, info.bytes)
    assert opened.kept.keys() == {"protected.onnx"}
    assert opened.manifest_bytes == (bundle / FILE_NAME).read_bytes()
    assert (opened.folder, opened.signature, opened.verified) == (bundle, None, False)
    with pytest.raises(BundleError, match=r"has no a\.engine"):
        opened.read("a.engine")


@pytest.mark.parametrize("data", [b"wicked" * 100, b"GRAPH" * 100, b""])
def test_a_file_that_changes_after_the_manifest_is_noticed(bundle: Path, data: bytes) -> None:
    with pytest.raises(BundleError, match=r"changed file protected\.onnx"):
        _opened(bundle, lambda: (bundle / "protected.onnx").write_bytes(data))


@needs_descriptors
def test_a_folder_that_takes_the_bundle_s_place_is_not_seen(bundle: Path, tmp_path: Path) -> None:
    wicked = _bundle(tmp_path / "wicked", b"wicked" * 100)

    def swap() -> None:
        bundle.rename(tmp_path / "away")
        wicked.rename(bundle)

    assert _opened(bundle, swap).read("protected.onnx") == b"graph" * 100
    assert _opened(bundle).read("protected.onnx") == b"wicked" * 100


@needs_descriptors
def test_a_file_that_becomes_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    def move() -> None:
        (bundle / "protected.onnx").rename(tmp_path / "moved")
        (bundle / "protected.onnx").symlink_to(tmp_path / "moved")

    with pytest.raises(BundleError, match=r"something else than a file called protected\.onnx"):
        _opened(bundle, move)


@pytest.mark.parametrize("relative", [False, True])
def test_a_manifest_that_is_a_link_is_refused(
    bundle: Path, tmp_path: Path, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "RELATIVE", relative and folders.RELATIVE)
    assert _opened(bundle).manifest == _manifest(bundle)
    moved = (bundle / FILE_NAME).rename(tmp_path / FILE_NAME)
    (bundle / FILE_NAME).symlink_to(moved)
    with pytest.raises(BundleError, match="is no bundle: it has no readable"):
        _opened(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("name", ["protected.onnx", FILE_NAME])
def test_a_pipe_is_refused_and_not_waited_for(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError):
        _opened(bundle)


def test_no_more_is_read_than_was_allowed(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"0123456789")
    with Folder(tmp_path) as folder:
        assert folder.names() == {"long"}
        assert folder.read("long", 10) == b"0123456789"
        assert folder.read("long", 3) == b"0123"
        with pytest.raises(OSError, match="missing"):
            folder.read("missing", 3)


def test_a_file_of_many_chunks_is_hashed_whole(tmp_path: Path) -> None:
    data = os.urandom((2 << 20) + 17)
    (tmp_path / "long").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    with Folder(tmp_path) as folder:
        assert folder.check("long", len(data), digest, keep=False) is None
        assert folder.check("long", len(data), digest, keep=True) == data
        for size, sha256 in ((len(data) - 1, digest), (len(data), "0" * 64)):
            with pytest.raises(ValueError, match="long"):
                folder.check("long", size, sha256, keep=False)


class Growing(Folder):
    """A file grows after its size was asked for."""

    def __init__(self, path: Path, data: bytes, size: int) -> None:
        super().__init__(path)
        self.data = io.BytesIO(data)
        self.size = size

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        yield self.data, self.size


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("size", [5, 1 << 20])
@pytest.mark.parametrize("growth", [1, 4 << 20])
def test_a_file_that_grows_is_noticed_and_not_read_on(
    tmp_path: Path, size: int, growth: int, keep: bool
) -> None:
    data = bytes(size)
    with Growing(tmp_path, data + bytes(growth), size) as folder:
        with pytest.raises(ValueError, match="name"):
            folder.check("name", size, hashlib.sha256(data).hexdigest(), keep=keep)
        assert folder.data.tell() <= size + (1 << 20)


@pytest.mark.parametrize("relative", [False, True])
def test_what_is_no_plain_file_is_named(
    tmp_path: Path, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "RELATIVE", relative and folders.RELATIVE)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    wrong = (
        ("folder", errno.EINVAL, "no plain file"),
        ("link", errno.ELOOP, os.strerror(errno.ELOOP)),
        ("none", errno.ENOENT, os.strerror(errno.ENOENT)),
    )
    with Folder(tmp_path) as folder:
        for name, code, reason in wrong:
            with pytest.raises(OSError, match=reason) as caught:
                folder.read(name, 1)
            assert (caught.value.errno, caught.value.strerror) == (code, reason)
            assert Path(caught.value.filename).name == name


@pytest.mark.parametrize("relative", [False, pytest.param(True, marks=needs_descriptors)])
def test_names_are_those_of_the_folder_that_was_opened(
    tmp_path: Path, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system lets a folder be held open; elsewhere of what lies at its path."""
    monkeypatch.setattr(folders, "RELATIVE", relative)
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with Folder(path) as folder:
        path.rename(tmp_path / "moved")
        path.mkdir()
        (path / "new").touch()
        assert folder.names() == {"old" if relative else "new"}


@needs_descriptors
def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Folder(tmp_path / "file")


def test_no_descriptor_stays_open(bundle: Path) -> None:
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        pytest.skip("this system does not list descriptors")
    before = len(list(listing.iterdir()))
    _opened(bundle)
    (bundle / "a.engine").unlink()
    (bundle / "a.engine").mkdir()
    with pytest.raises(BundleError):
        _opened(bundle)
    assert len(list(listing.iterdir())) == before


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", b"\xff".decode("utf-8", "surrogateescape")])
def test_a_strange_name_does_no_harm_to_a_terminal(bundle: Path, name: str) -> None:
    (bundle / name).touch()
    with pytest.raises(BundleError) as caught:
        _opened(bundle)
    assert ascii(name) in caught.value.what
    assert caught.value.what.isprintable()

"""The C++ runtime: built with what this machine has, and held against the Python runtime.

ONNX Runtime comes in where ``ONNXRUNTIME_ROOT`` names a folder with its headers and library, or where they
lie on the usual paths; what needs it is skipped elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zmask_export
from tests.conftest import ONE_THREAD, Inputs, assert_refused, contents, link_tree, zmask
from zmask_export.artifacts.bundle import read_manifest
from zmask_export.artifacts.signature import Signer
from zmask_export.data import images
from zmask_export.errors import BundleError
from zmask_export.runtime.protected import Protected

SOURCE = Path(__file__).parents[2] / "engines" / "cpp"
README = (SOURCE / "README.md").read_text("utf-8")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("cmake") and shutil.which("c++")), reason="no cmake or no C++ compiler"
    ),
]


@dataclass(frozen=True)
class Build:
    """A configured and built runtime.

    Attributes:
        folder: the build folder.
        said: what the configuration said.
    """

    folder: Path
    said: str

    @property
    def has_runtime(self) -> bool:
        return "ONNXRUNTIME: left out" not in self.said

    def mask(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the example."""
        return done(self.folder / "examples" / "zmask_mask", *arguments)


def done(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, check=False, timeout=300, env=ONE_THREAD,
    )  # fmt: skip


def configured(source: Path, folder: Path, *options: str) -> str:
    """Configure and build without optimisation, which takes longest; return what was said."""
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    setup = done(
        "cmake", "-S", source, "-B", folder, *generator, "-DCMAKE_CXX_FLAGS=-O0", *options
    )  # fmt: skip
    assert setup.returncode == 0, setup.stdout + setup.stderr
    made = done("cmake", "--build", folder, "--parallel", "2")
    assert made.returncode == 0, made.stdout + made.stderr
    return setup.stdout


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("cpp")
    return Build(folder, configured(SOURCE, folder))


@pytest.fixture(scope="module")
def python(bundle: Path) -> Protected:
    return zmask_export.load(bundle, threads=1)


def test_the_configuration_says_what_it_left_out(cpp: Build) -> None:
    assert "zmask: TENSORRT: left out; ZMASK_WITH_TENSORRT=ON takes it" in cpp.said
    assert re.search("zmask: ONNXRUNTIME: (left out, not found; set ONNXRUNTIME_ROOT|/)", cpp.said)
    if os.environ.get("ONNXRUNTIME_ROOT"):
        assert cpp.has_runtime


def test_unit_tests(cpp: Build) -> None:
    ran = done("ctest", "--test-dir", cpp.folder, "--output-on-failure")
    assert ran.returncode == 0, ran.stdout
    assert "100% tests passed, 0 tests failed out of 6" in ran.stdout


def test_no_build_replaces_the_source(inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(SOURCE, tmp_path / "engines" / "cpp")
    before = contents(copy)
    assert_refused(zmask("build", *inputs.random, "--out", copy, "--force"), 5, "cpp")
    assert contents(copy) == before


def test_the_versions_are_one() -> None:
    assert f"project(zmask VERSION {zmask_export.__version__} " in (
        SOURCE / "CMakeLists.txt"
    ).read_text("utf-8")


def test_a_bundle_is_what_python_says_it_is(cpp: Build, bundle: Path, detect_bundle: Path) -> None:
    for folder in (bundle, detect_bundle):
        manifest = read_manifest(folder)
        checked = cpp.mask(folder)
        assert checked.returncode == 0, checked.stderr
        found = json.loads(checked.stdout)
        assert (found["height"], found["width"]) == manifest.input_size
        assert found["model"] == manifest.model
        assert found["outputs"] == len(manifest.outputs)
        assert found["threshold"] == pytest.approx(manifest.threshold, rel=1e-8)


def test_a_changed_byte_in_any_file_is_refused(
    cpp: Build, bundle: Path, inputs: Inputs, tmp_path: Path
) -> None:
    image = tmp_path / "0.ppm"
    Image.open(inputs.image).save(image)
    names = sorted(path.name for path in bundle.iterdir())
    assert {"protected.onnx", "manifest.json", "calibration.safetensors"} <= set(names)
    for name in names:
        folder = link_tree(bundle, tmp_path / f"of-{name}")
        data = bytearray((folder / name).read_bytes())
        at = len(data) // 2
        if name == "manifest.json":  # the first digit of a file's size, which stays a digit
            at = data.rindex(b'"bytes": ') + len(b'"bytes": ')
        data[at] ^= 1
        (folder / name).unlink()
        (folder / name).write_bytes(data)
        for arguments in ((), (image, tmp_path / "mask.pgm")):
            refused = cpp.mask(folder, *arguments)
            assert refused.returncode == 4, (name, refused.stderr)
            said = "its checksum is another" if name == "manifest.json" else "has a changed file"
            assert said in refused.stderr
            assert refused.stdout == ""
    assert not (tmp_path / "mask.pgm").exists()


def test_signed_bundles_open_with_their_key_alone(
    cpp: Build, detect_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="the extra sign is not installed")
    keys = [tmp_path / name for name in ("mine", "other")]
    for key in keys:
        assert zmask("keygen", key).code == 0
    mine, other = (Path(f"{key}.pub") for key in keys)
    signed = link_tree(detect_bundle, tmp_path / "signed")
    assert zmask("sign", signed, "--key", keys[0]).code == 0
    assert cpp.mask(signed).returncode == 0
    if "OPENSSL: left out" in cpp.said:
        refused = cpp.mask("--verify-key", mine, signed)
        assert refused.returncode == 6
        assert "has no OpenSSL" in refused.stderr
        return
    raw = tmp_path / "raw.pub"
    raw.write_bytes(Signer(keys[0]).public())
    for key in (mine, raw):
        opened = cpp.mask("--verify-key", key, signed)
        assert opened.returncode == 0, opened.stderr
        assert opened.stdout == cpp.mask(signed).stdout

    def refuses(folder: Path, key: object, word: str) -> None:
        for arguments in ((), (tmp_path / "0.ppm", tmp_path / "mask.pgm")):
            refused = cpp.mask("--verify-key", key, folder, *arguments)
            assert refused.returncode == 4
            assert word in refused.stderr, refused.stderr

    refuses(signed, other, "not signed with this key, or was changed since")
    refuses(detect_bundle, mine, "is not signed")
    refuses(signed, keys[0], "no Ed25519 public key")
    refuses(signed, tmp_path, "cannot be read")
    refuses(signed, "", "cannot be read")
    # No JSON, and not said: the signature comes first.
    (signed / "manifest.json").unlink()
    (signed / "manifest.json").write_text("[" * 1000)
    refuses(signed, mine, "not signed with this key")


@pytest.mark.parametrize("data", [b"", b"\0" * 63, b"\0" * 65, None])
def test_what_is_no_signature_is_refused(
    cpp: Build, detect_bundle: Path, tmp_path: Path, data: bytes | None
) -> None:
    copy = link_tree(detect_bundle, tmp_path / "copy")
    if data is None:
        (copy / "manifest.sig").symlink_to(copy / "manifest.json")
    else:
        (copy / "manifest.sig").write_bytes(data)
    refused = cpp.mask(copy)
    with pytest.raises(BundleError) as caught:
        read_manifest(copy)
    assert refused.returncode == 4
    assert caught.value.what in refused.stderr


@pytest.mark.parametrize(
    ("size", "to"),
    [
        ((96, 128), (96, 128)),
        ((97, 128), (96, 128)),
        ((96, 255), (96, 128)),
        ((480, 640), (96, 128)),
        ((333, 517), (96, 128)),
        ((17, 23), (96, 128)),
        ((50, 300), (96, 401)),
        ((1, 2), (7, 7)),
        ((61, 31), (60, 30)),
    ],
)
def test_images_are_stretched_to_the_same_bits(
    cpp: Build, size: tuple[int, int], to: tuple[int, int]
) -> None:
    image = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized = subprocess.run(
        [cpp.folder / "tests" / "resize", *map(str, (*size, *to))],
        input=image.tobytes(), capture_output=True, check=True,
    )  # fmt: skip
    mine = np.frombuffer(resized.stdout, np.uint8).reshape(*to, 3)
    np.testing.assert_array_equal(mine, images.resize(image, to))


@pytest.mark.parametrize("threshold", [None, 0.0])
@pytest.mark.parametrize("size", [None, (130, 150)])
def test_results_are_those_of_the_python_runtime(
    cpp: Build,
    bundle: Path,
    python: Protected,
    inputs: Inputs,
    tmp_path: Path,
    size: tuple[int, int] | None,
    threshold: float | None,
) -> None:
    if not cpp.has_runtime:
        pytest.skip("ONNX Runtime's headers are not here: set ONNXRUNTIME_ROOT")
    for index, path in enumerate(sorted(inputs.images.iterdir())):
        picture = Image.open(path)
        picture = picture.resize(size[::-1]) if size else picture
        image = tmp_path / "image.ppm"
        picture.save(image)
        out = tmp_path / f"{index}.pgm"
        ran = cpp.mask(bundle, image, out, *([] if threshold is None else [threshold]))
        assert ran.returncode == 0, ran.stderr
        found = json.loads(ran.stdout)
        result = python(np.asarray(picture), threshold=threshold)
        np.testing.assert_array_equal(np.asarray(Image.open(out)) > 127, result.mask)
        assert found["score"] == pytest.approx(result.score, abs=1e-5)
        assert found["flag"] == result.flag
        assert found["covered"] == pytest.approx(1 - result.mask.mean())
        if threshold == 0.0:
            assert found["flag"]


def test_the_readme_s_consumer_builds_and_runs(cpp: Build, bundle: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    installed = done("cmake", "--install", cpp.folder, "--prefix", prefix)
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "source").mkdir()
    for name, language in (("CMakeLists.txt", "cmake"), ("main.cpp", "cpp"), ("main.c", "c")):
        block = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
        assert block is not None
        (tmp_path / "source" / name).write_text(block[1])
    configured(tmp_path / "source", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    for program in ("consumer", "consumer_c"):
        ran = done(tmp_path / "build" / program, bundle)
        if cpp.has_runtime:
            assert ran.returncode == 0, ran.stderr
            assert re.search(r"\d\.\d+", ran.stdout)
        else:
            assert ran.returncode == 6
            assert "no ONNX Runtime" in ran.stderr

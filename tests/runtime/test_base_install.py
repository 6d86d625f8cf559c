"""What the base distribution installs is enough to load and run a bundle, and light.

A fresh process in which nothing can be imported but the standard library, this package and what its base
dependencies bring; the real thing would be a new virtual environment, which takes a network.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ONE_THREAD, Inputs
from tests.drawn import SIZE
from zmask_export.cli.missing import BUILD_MODULES

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SECONDS, MEGABYTES = 0.5, 60
"""Bounds of the import, beyond NumPy and ONNX Runtime."""

ONLY = """
import importlib.abc, sys
class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Only())
"""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _needed(requirements: list[str]) -> set[str]:
    """Distributions that requirements bring here, those of their own included."""
    found: set[str] = set()
    left = [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        name = _normal(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        left += [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    return found


def _modules(distributions: set[str]) -> set[str]:
    """Top-level modules of distributions."""
    brought = importlib.metadata.packages_distributions()
    return {
        module
        for module, names in brought.items()
        if distributions & {_normal(name) for name in names}
    }


def _process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ONE_THREAD
    )


@pytest.fixture(scope="module")
def only_the_base() -> str:
    """Code that lets a process import nothing else."""
    allowed = _modules(_needed(PROJECT["dependencies"])) | {"zmask_export"}
    assert not allowed & BUILD_MODULES
    assert {"numpy", "onnxruntime", "pydantic", "PIL", "click", "rich"} <= allowed
    return f"ALLOWED = {sorted(allowed)} + sorted(__import__('sys').stdlib_module_names)\n{ONLY}"


def test_the_base_loads_and_runs(only_the_base: str, bundle: Path, inputs: Inputs) -> None:
    done = _process(
        f"{only_the_base}"
        "import numpy, zmask_export\n"
        f"with zmask_export.load({str(bundle)!r}) as engine:\n"
        f"    result = engine(numpy.full({(*SIZE, 3)}, 90, numpy.uint8))\n"
        "print(result.mask.shape)\n"
        "from zmask_export.cli.main import run\n"
        f"sys.exit(run(['run', {str(bundle)!r}, {str(inputs.image)!r}]))"
    )
    assert (done.returncode, done.stderr) == (0, "")
    shape, line = done.stdout.splitlines()
    assert shape == str(SIZE)
    assert json.loads(line)["image"] == str(inputs.image)


def test_a_verb_that_needs_more_says_what_to_install(
    only_the_base: str, bundle: Path, inputs: Inputs
) -> None:
    verbs = [
        ["build", *inputs.random, "--out", "x"],
        ["plan", *inputs.random],
        ["verify", bundle, *inputs.random],
        ["evaluate", bundle, "--data", inputs.camvid, "--patch", inputs.patch],
        ["craft", *inputs.random, "--data", inputs.camvid, "--out", "x.png"],
        ["calibrate", *inputs.random, "--images", inputs.images, "--out", "x.safetensors"],
        ["monitor", bundle, "x.jsonl"],
        ["fit", *inputs.random, "--images", inputs.images, "--calibration", "x", "--patch", "p"],
    ]
    given = [[str(word) for word in verb] for verb in verbs]
    done = _process(
        f"{only_the_base}from zmask_export.cli.main import run\n"
        f"print([run(verb) for verb in {given}])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([6] * len(verbs)), done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 2 * len(verbs)
    for error, fix in zip(said[::2], said[1::2], strict=True):
        assert re.fullmatch(
            r"Error: The package \w+ is not installed, which this command needs.", error
        )
        assert fix.endswith("pip install 'zmask-export[build]'.")


def test_the_extra_brings_the_modules_that_are_called_missing() -> None:
    extra = [Requirement(text) for text in PROJECT["optional-dependencies"]["build"]]
    own = {_normal(requirement.name) for requirement in extra} - {"zmask-export"}
    public = {name for name in _modules(own) if not name.startswith("_") and "__mypyc" not in name}
    assert public >= BUILD_MODULES
    # What a package brings beside its namesake is none that this one imports.
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "zmask_export").rglob("*.py"))
    for name in public - BUILD_MODULES:
        assert not re.search(rf"^\s*(import|from) {name}\b", text, re.MULTILINE), name


def test_every_extra_of_this_package_exists() -> None:
    extras = PROJECT["optional-dependencies"]
    for texts in extras.values():
        for requirement in map(Requirement, texts):
            if requirement.name == "zmask-export":
                assert requirement.extras <= extras.keys()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_the_import_is_quick_and_light() -> None:
    code = (
        "import os, time\n"
        "def megabytes():\n"
        "    pages = int(open('/proc/self/statm').read().split()[1])\n"
        "    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6\n"
        "import numpy, onnxruntime\n"
        "memory, started = megabytes(), time.perf_counter()\n"
        "import zmask_export\n"
        "zmask_export.load\n"
        "print(time.perf_counter() - started, megabytes() - memory)"
    )
    seconds, megabytes = zip(
        *(map(float, _process(code).stdout.split()) for _ in range(3)), strict=True
    )
    # The least: whatever else the machine does can only add to it.
    assert 0 < min(seconds) < SECONDS
    assert 0 < statistics.median(megabytes) < MEGABYTES


def test_nothing_is_written_for_onnx_runtime_s_maker(tmp_path: Path) -> None:
    """Its official builds leave an identifier in the user's folder as they are imported."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in ONE_THREAD.items() if not k.startswith(("XDG_", "ORT_"))}
    code = "import zmask_export.backends.onnx_runtime"
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, env=environment | {"HOME": str(home)}
    )
    assert list(home.rglob("*")) == []

"""What the tests of the command line share: a way to run it, small inputs, one built bundle."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import refusals
from tests.drawn import draw_inputs
from zmask_export.backends import tensorrt
from zmask_export.cli.main import run

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if WORKER and hasattr(os, "sched_setaffinity"):
    # A core for each of the suite's processes and all that it starts: runners that take every core would
    # wait for each other at full speed.
    CORES = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {CORES[int(WORKER.removeprefix("gw")) % len(CORES)]})

# Small tensors gain nothing from more threads, and threads that wait for each other starve a busy machine.
torch.set_num_threads(1)
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bad-inputs", type=Path, metavar="FILE", help="write what was refused into this page"
    )
    parser.addoption(
        "--bundles",
        type=Path,
        metavar="FOLDER",
        help="keep inputs and bundles here, and take what is there: for sessions of a few seconds",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--bad-inputs") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--bad-inputs is for one process: leave -n out")


LONGEST = ("test_readme.py", "test_camvid_study.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that they do not keep one process busy while the others are done."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    page: Path | None = session.config.getoption("--bad-inputs")
    if page is None or exitstatus != 0:
        return
    folders = refusals.roots(session.config._tmp_path_factory.getbasetemp())
    rows = [
        refusals.refusal(node, o.arguments, o.code, *o.err.splitlines()[-2:], folders)
        for node, o in SEEN
    ]
    page.write_text(refusals.render(rows), "utf-8")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str
    arguments: tuple[str, ...] = ()

    @property
    def record(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.out)


def zmask(*arguments: object) -> Outcome:
    """Run the entry point in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(a) for a in arguments])
    return Outcome(code, out.getvalue(), err.getvalue(), tuple(map(str, arguments)))


def command(*arguments: object) -> list[str]:
    """The installed program with its arguments."""
    return [str(Path(sys.executable).with_name("zmask-export")), *map(str, arguments)]


def zmask_process(*arguments: object, **options: Any) -> Outcome:
    """Run the installed program in a process of its own."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=ONE_THREAD,
        **options,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, tuple(map(str, arguments)))


def contents(folder: Path) -> list[str]:
    """Everything below a folder, hidden files too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def link_tree(source: Path, target: Path) -> Path:
    """A copy of a bundle whose files share the original's bytes; replace them, never write into them."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        os.link(path, target / path.name)
    return target


@dataclass(frozen=True)
class Inputs:
    """Small inputs on disk.

    Attributes:
        preset: YAML of a 96 x 128 input.
        images: folder of three drawn scenes of that size.
        image: one of them.
        patch: a patch of noise.
        weights: ICNet weights, other than --random-weights gives.
        camvid: a data set in CamVid's layout with drawn scenes and random labels.
    """

    preset: Path
    images: Path
    image: Path
    patch: Path
    weights: Path
    camvid: Path

    @property
    def random(self) -> tuple[object, ...]:
        """Options of ICNet with random weights."""
        return ("--model", "icnet", "--random-weights", "--preset", self.preset)

    @property
    def own(self) -> tuple[object, ...]:
        """Options of ICNet with the weights file."""
        return ("--model", "icnet", "--weights", self.weights, "--preset", self.preset)


Make = Callable[[str, Callable[[Path], object]], Path]
"""Gives a folder by its name, made once."""


@pytest.fixture(scope="session")
def make_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Of the session with all its processes, or of all sessions that were given one place for it."""
    kept: Path | None = request.config.getoption("--bundles")
    own = tmp_path_factory.getbasetemp()
    root = kept.absolute() if kept else (own.parent if WORKER else own) / "made"

    def make(name: str, how: Callable[[Path], object]) -> Path:
        folder = root / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                try:
                    how(folder)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
        return folder

    return make


@pytest.fixture(scope="session")
def inputs(make_once: Make) -> Inputs:
    root = make_once("inputs", draw_inputs)
    return Inputs(
        preset=root / "tiny.yaml",
        images=root / "images",
        image=root / "images" / "0.png",
        patch=root / "noise.png",
        weights=root / "own.safetensors",
        camvid=root / "camvid",
    )


def _build(*arguments: object) -> Outcome:
    outcome = zmask("build", *arguments)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture(scope="session")
def bundle(inputs: Inputs, make_once: Make) -> Path:
    """The gated bundle of random weights, with every engine that builds here."""
    # TensorRT's engines, where there is one, are never the same bytes twice.
    same = ("--reproducible",) if tensorrt.available("tensorrt") is not None else ()

    def build(out: Path) -> None:
        outcome = _build(*inputs.random, *same, "--out", out, "--json")
        out.with_suffix(".json").write_text(outcome.out)

    return make_once("gated", build)


@pytest.fixture(scope="session")
def build_record(bundle: Path) -> Any:
    """What the build of ``bundle`` printed, as JSON."""
    return json.loads(bundle.with_suffix(".json").read_text())


@pytest.fixture(scope="session")
def calibration(bundle: Path) -> Path:
    """The fitted calibration of the random weights."""
    return bundle / "calibration.safetensors"


@pytest.fixture(scope="session")
def detect_bundle(inputs: Inputs, calibration: Path, make_once: Make) -> Path:
    """A bundle of policy detect, without engines."""
    arguments = (*inputs.random, "--calibration", calibration, "--policy", "detect")
    return make_once("detect", lambda out: _build(*arguments, "--target", "onnx", "--out", out))


@pytest.fixture(scope="session")
def own_bundle(inputs: Inputs, make_once: Make) -> Path:
    """A bundle of the user's own weights, calibrated and fitted on the user's images and patch."""
    arguments = (*inputs.own, "--images", inputs.images, "--patch", inputs.patch)
    return make_once("own", lambda out: _build(*arguments, "--target", "onnx", "--out", out))


def assert_refused(outcome: Outcome, code: int, *words: str) -> None:
    """The exit code, one sentence what, one line how to fix, no traceback, the words in them."""
    lines = outcome.err.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert (outcome.code, len(errors)) == (code, 1), outcome.err
    assert lines[-2] == errors[0], outcome.err
    assert lines[-1].startswith("  Fix: "), outcome.err
    assert lines[-1].rstrip().endswith("."), outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    said = "\n".join(lines[-2:])
    assert [word for word in words if word not in said] == [], said
    SEEN.append((os.environ["PYTEST_CURRENT_TEST"], outcome))


SEEN: list[tuple[str, Outcome]] = []
"""The refusals so far, each with the test that caused it."""


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result's path in an empty folder, which is also the working directory."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder / "result"

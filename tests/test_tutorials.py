"""The tutorials in docs/ on networks of one's own, executed as they stand there.

Code under the name of a file is written into that file. What a reader would bring is put in place:
``clean/`` (drawn streets), and CAMVID, a data set with drawn streets and made-up labels.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ONE_THREAD, Inputs, zmask
from tests.drawn import save_scene
from zmask_export.data import images
from zmask_export.runtime.protected import load

DOCS = Path(__file__).parent.parent / "docs"
SHIPPED = "## A file that a package ships"
SLOW_CRAFT = ("--epochs", "1", "--images", "2")


def follow(text: str, inputs: Inputs) -> list[str]:
    """Write the files of a tutorial, run its commands, and return them."""
    for file, code in re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", text, re.M | re.S):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(code, "utf-8")
    commands = re.findall(r"^    ((?:python|zmask-export) .*)$", text, re.M)
    for command in commands:
        program, *arguments = shlex.split(command.replace("CAMVID", str(inputs.camvid)))
        if program == "python":
            subprocess.run(
                [sys.executable, *arguments], check=True, capture_output=True, env=ONE_THREAD
            )
            continue
        if arguments[0] == "build":
            arguments += ["--target", "onnx"]
        if arguments[0] == "craft" and "--random" not in arguments:
            arguments += SLOW_CRAFT
        outcome = zmask(*arguments)
        assert outcome.code == 0, f"{command}\n{outcome.err}"
    return commands


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's folder, which is the working directory."""
    for seed in range(3):
        save_scene(tmp_path / "clean" / f"{seed}.png", seed + 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "nets"]:
        del sys.modules[name]


def test_own_module(desk: Path, inputs: Inputs) -> None:
    commands = follow((DOCS / "own-module.md").read_text("utf-8"), inputs)
    assert [shlex.split(c)[1] for c in commands] == [
        "plan", "craft", "calibrate", "fit", "build", "verify", "run",
    ]  # fmt: skip
    engine = load(desk / "engines" / "street")
    assert engine.manifest.model == "nets.street:make"
    assert engine.manifest.classes[0] == "sky"
    assert (desk / "results" / "0.prediction.png").is_file()


def test_own_onnx(desk: Path, inputs: Inputs) -> None:
    text, found, _ = (DOCS / "own-onnx.md").read_text("utf-8").partition(SHIPPED)
    assert found
    commands = follow(text, inputs)
    assert [shlex.split(c)[1] for c in commands] == [
        "export.py", "craft", "calibrate", "fit", "build", "verify", "run",
    ]  # fmt: skip
    engine = load(desk / "engines" / "lraspp")
    assert engine.manifest.outputs[0].name == "logits"
    assert (desk / "results" / "0.prediction.png").is_file()
    listed = zmask("plan", "--onnx", "lraspp.onnx", "--preprocess", "imagenet").err
    for line in re.findall(r"/backbone/[\w./]+_output_0(?=,)", text):
        assert line in listed


@pytest.mark.skipif(find_spec("rapidocr_onnxruntime") is None, reason="needs rapidocr-onnxruntime")
def test_a_file_that_a_package_ships(desk: Path, inputs: Inputs) -> None:
    text = (DOCS / "own-onnx.md").read_text("utf-8")
    (desk / "noise.png").write_bytes(inputs.patch.read_bytes())
    assert len(follow(text[text.index(SHIPPED) :], inputs)) == 4
    engine = load(desk / "engines" / "ocr")
    result = engine(images.read(desk / "clean" / "0.png"))
    assert result.outputs["text"].shape == (1, 192, 256)
    assert result.prediction is None

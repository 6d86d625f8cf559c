"""Every command and the Python example of the README, executed as they stand there.

What a reader would bring is put in place: ``mine.pth`` (a checkpoint) and ``clean/`` (drawn streets).
CAMVID is the real data set, where it is at hand.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import Make, link_tree
from tests.demos import build_demo
from zmask_export.data.scene import draw_scene
from zmask_export.models import registry, weights

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
CAMVID = ROOT.parent / "shared" / "data" / "camvid"
COMMANDS = re.findall(r"^    (\S.*)$", TEXT, re.MULTILINE)
# pipeline/test_camvid_study.py executes the study's.
RUNNABLE = [c for c in COMMANDS if re.match(r"(python|zmask-export) ", c) and "--study" not in c]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the checkout to the commands, with a reader's own files in it."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("calib", "tools"):
        (folder / name).symlink_to(ROOT / name)
    entry = registry.get("icnet")
    shipped = ROOT / "calib" / "icnet" / "weights.safetensors"
    network, _ = weights.load_network(entry, shipped)
    with torch.no_grad():
        network.get_parameter("classification.bias").add_(0.01)
    torch.save({"model_state": network.state_dict()}, folder / "mine.pth")
    (folder / "clean").mkdir()
    for seed in range(2):
        Image.fromarray(draw_scene((360, 480), seed)).save(folder / "clean" / f"{seed}.png")
    return folder


def execute(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as it stands, in a shell whose environment is activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: S602
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": path},
    )  # fmt: skip


def test_make_targets_run_what_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "make demo" in COMMANDS
    assert "make test" in COMMANDS
    assert "zmask-export build --model icnet" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.fixture(scope="module")
def demo(desk: Path, make_once: Make) -> Path:
    """What ``make demo`` builds, the one of the demo's tests."""
    built = make_once("demos/icnet", functools.partial(build_demo, "icnet"))
    link_tree(built, desk / "engines" / "icnet")
    return desk


def test_readme_has_its_commands() -> None:
    assert len(RUNNABLE) >= 7


@pytest.mark.parametrize("command", RUNNABLE)
def test_command(command: str, demo: Path) -> None:
    if "CAMVID" in command:
        if not CAMVID.is_dir():
            pytest.skip("the CamVid data set is not here")
        command = command.replace("CAMVID", str(CAMVID))
        command += " --images 2" if " craft " in command else " --limit 4"
    if " build " in command:
        command += " --target onnx"
    if " profile " in command:
        command += " --seconds 1 --batch 1"
    if " craft " in command and "--random" not in command:
        command += " --epochs 1"
        command = command.replace("patch.png", "crafted.png")
    elif "patch patch.png" in command:
        command = command.replace("patch patch.png", "patch calib/icnet/patch.png")
    if "/endurance.py" in command:
        command = command.replace("--seconds 60", "--seconds 3 --warm-up 1")
    if "/protection.py" in command:
        command += " --quick --only policies --batch 1"
    result = execute(command, demo)
    assert result.returncode == 0, result.stderr


def test_python_example(demo: Path) -> None:
    assert execute("python tools/draw_street.py --out street", demo).returncode == 0
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code is not None
    result = subprocess.run(
        [sys.executable, "-c", code[1]], cwd=demo, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("True ")

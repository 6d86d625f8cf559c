from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import zmask, zmask_process
from zmask_export import __version__

VERBS = (
    "build", "calibrate", "craft", "doctor", "evaluate", "fit", "inspect", "monitor", "plan", "profile",
    "run", "triton", "verify",
)  # fmt: skip
HEAVY = ("torch", "tensorrt", "tensorrt_rtx", "onnxruntime", "numpy")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_an_example(verb: str) -> None:
    outcome = zmask(verb, "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out
    assert f"\n    zmask-export {verb} " in outcome.out
    assert outcome.err == ""


def test_help_lists_every_verb() -> None:
    outcome = zmask_process("--help")
    assert outcome.code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in outcome.out


def test_no_argument_shows_the_help() -> None:
    assert zmask().out == zmask("--help").out


def test_version() -> None:
    assert zmask_process("--version").out == f"zmask-export, version {__version__}\n"


def test_help_of_all_verbs_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from zmask_export.cli.main import run\n"
        f"codes = [run([verb, '--help']) for verb in {VERBS}]\n"
        f"print(codes, sorted(set(sys.modules) & set({HEAVY})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == f"{[0] * len(VERBS)} []"

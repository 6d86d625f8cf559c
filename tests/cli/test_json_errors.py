from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import Inputs, contents, zmask, zmask_process
from zmask_export.pipeline import build as build_module

MODEL = ("--model", "nosuchnet")
ERRORS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "build": (MODEL, 2, "UsageError"),
    "calibrate": ((*MODEL, "--images", "nosuch", "--out", "a"), 2, "UsageError"),
    "craft": ((*MODEL, "--data", "nosuch", "--out", "a.png"), 2, "UsageError"),
    "evaluate": (("nosuch", "--data", "nosuch", "--patch", "nosuch"), 4, "BundleError"),
    "fit": ((*MODEL, "--calibration", "a", "--images", "b", "--patch", "c"), 2, "UsageError"),
    "verify": (("nosuch", *MODEL), 4, "BundleError"),
}


@pytest.mark.parametrize("verb", ERRORS)
def test_an_error_is_one_json_object(verb: str, out: Path) -> None:
    options, code, kind = ERRORS[verb]
    outcome = zmask(verb, *options, "--json")
    assert outcome.code == code
    assert outcome.record["error"] == kind
    assert outcome.record.keys() == {"error", "what", "fix"}
    assert outcome.record["what"].endswith(".")
    assert outcome.record["fix"].endswith(".")
    assert "Traceback" not in outcome.err
    assert contents(out.parent) == []


@pytest.mark.parametrize("verb", ERRORS)
def test_a_wrong_option_is_one_json_object(verb: str) -> None:
    outcome = zmask(verb, "--nosuch", "--json")
    assert outcome.code == 2
    assert outcome.record["error"] == "UsageError"


def test_the_program_itself_says_the_same(inputs: Inputs, out: Path) -> None:
    outcome = zmask_process("build", *inputs.random, "--deep", "nosuch", "--json", "--out", out)
    assert outcome.code == 2
    assert "nosuch" in json.loads(outcome.out)["what"]
    assert contents(out.parent) == []


def test_running_out_of_memory_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(name: str) -> None:
        raise MemoryError

    monkeypatch.setattr("importlib.import_module", exhausted)
    outcome = zmask("build", "--model", "icnet")
    assert outcome.code == 6
    assert outcome.err.startswith("Error: Out of memory.\n  Fix: ")
    assert zmask("build", "--json").record["error"] == "BackendError"


def test_memory_that_torch_cannot_get_is_an_error_of_ours(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        build_module, "open_network", lambda options: torch.empty(1 << 60, dtype=torch.uint8)
    )
    outcome = zmask("build", "--model", "icnet", "--target", "onnx", "--out", out, "--json")
    assert outcome.code == 6
    assert outcome.record["what"] == "Out of memory."
    assert contents(out.parent) == []


def test_another_error_of_torch_is_not_hidden(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "open_network", lambda options: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        zmask("build", "--model", "icnet", "--target", "onnx", "--out", out)

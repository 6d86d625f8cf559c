"""Modules of the user's own that cannot be used: one sentence what, one how to fix it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import assert_refused, zmask

TAPS = ("--input-size", "32x48", "--shallow", "stem", "--deep", "mid")

FACTORIES = {
    "nets": (2, "'nets' names no factory"),
    "own.nets:": (2, "names no factory"),
    "own.nets:make()": (2, "names no factory"),
    "nothere:make": (2, "no module 'nothere'"),
    "own.nothere:make": (2, "no module 'own.nothere'"),
    "own.nets:mak": (2, "has no mak", "make"),
    "own.nets:needs": (2, "needs arguments: width"),
    "own.nets:A_NUMBER": (2, "is a int, no factory"),
    "own.nets:A_NETWORK": (2, "is a Conv2d, no factory"),
    "own.nets:fails": (4, "KeyError", "no checkpoint here", "nets.py, line"),
    "own.nets:no_module": (4, "returns a dict"),
    "own.broken:make": (4, "SyntaxError"),
    "own.exits:make": (4, "SystemExit: 7"),
    "own.lacks:make": (4, "no_such_package_of_anybody"),
    "own.nets:forward_fails": (4, "RuntimeError", "nets.py, line", "scores @ flat"),
    "own.nets:strings": (4, "returns a str"),
    "own.nets:no_batch": (4, "first dimension is not the batch"),
    "own.nets:half": (4, "torch.float16"),
    "own.nets:named_mask": (2, "cannot be called 'mask'", "--outputs my_mask=mask"),
}


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_factory_that_gives_no_network(factory: str, desk: Path) -> None:
    code, *words = FACTORIES[factory]
    assert_refused(zmask("plan", "--module", factory, *TAPS), code, *words)


LAYERS = {
    "sten": (2, "no layer called 'sten'", "Near names: stem", "One a resolution: stem, mid."),
    "again": (2, "'again' runs 2 times"),
    "idle": (2, "'idle' does not run"),
    "flat": (4, "'flat' gives (2, 1536), not a map"),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_that_cannot_be_tapped(layer: str, desk: Path) -> None:
    code, *words = LAYERS[layer]
    outcome = zmask(
        "plan", "--module", "own.nets:dictionary", *TAPS[:2], "--shallow", layer, "--deep", "mid"
    )
    assert_refused(outcome, code, *words)


OPTIONS = {
    "no taps": (("--input-size", "32x48"), "taps of this network are not known", "stem, mid"),
    "no size": (("--shallow", "stem", "--deep", "mid"), "size of the input is not known"),
    "weights": ((*TAPS, "--random-weights"), "no use for --random-weights"),
    "limits": ((*TAPS, "--detections", "4"), "no use for a limit of detections"),
    "two networks": ((*TAPS, "--model", "icnet"), "--model, --module and --onnx exclude"),
    "too many names": ((*TAPS, "--outputs", "a,b"), "has 3 outputs, and 2 names"),
    "no such output": ((*TAPS, "--outputs", "a=road"), "no output 'road'", "out, aux, best"),
    "one name twice": ((*TAPS, "--outputs", "a=out,a=aux"), "Two outputs have one name"),
    "no name": ((*TAPS, "--outputs", "a b=out"), "cannot be called 'a b'"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_make_no_sense(case: str, desk: Path) -> None:
    options, *words = OPTIONS[case]
    outcome = zmask("plan", "--module", "own.nets:dictionary", *options)
    assert_refused(outcome, 2, *words)


def test_logits_must_be_scores_of_classes(desk: Path) -> None:
    outcome = zmask("plan", "--module", "own.nets:dictionary", *TAPS, "--outputs", "logits=best")
    assert_refused(outcome, 4, "The output logits is torch.int64")


PRESETS = {
    "classes": (2, "classes: [road, sky]", "names 2 classes, and own.nets:make gives logits of 5"),
    "half a normalisation": (4, "mean: [0, 0, 0]", "mean and std belong together"),
    "weights": (4, "weights: net.pth", "brings its weights itself"),
    "a size of nothing": (4, "input_size: [0, 0]", "input_size.0"),
    "an unknown field": (4, "colour: red", "colour"),
}


@pytest.mark.parametrize("case", PRESETS)
def test_a_preset_that_makes_no_sense(case: str, desk: Path) -> None:
    code, line, word = PRESETS[case]
    preset = desk / "own.yaml"
    size = "" if "size" in case else "input_size: [32, 48]\n"
    preset.write_text(f"{size}shallow: [stem]\ndeep: [mid]\n{line}\n")
    outcome = zmask("plan", "--module", "own.nets:make", "--preset", preset)
    assert_refused(outcome, code, word)


def test_outputs_of_registered_networks_have_their_names(desk: Path) -> None:
    outcome = zmask("plan", "--model", "icnet", "--random-weights", "--outputs", "scores")
    assert_refused(outcome, 2, "has its own names for its outputs")

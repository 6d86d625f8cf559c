"""Options that name nothing, contradict each other or make no sense: exit code 2."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.conftest import Inputs, assert_refused, contents, zmask, zmask_process
from zmask_export.artifacts import calibration as calibrations

NETWORK = {
    "unknown network": (["--model", "nosuchnet"], "no network called 'nosuchnet'"),
    "unknown preset": (["--preset", "nosuch.yaml"], "no preset 'nosuch.yaml'"),
    "a preset without weights": (["--preset", "paper"], "brings no weights"),
    "an unknown tap": (["--shallow", "res_block9"], "no layer called 'res_block9'"),
    "an unknown deep tap": (["--deep", "res_block5,nosuch"], "no layer called 'nosuch'"),
    "a tap twice": (["--deep", "res_block5,res_block5"], "twice"),
    "an unknown normalisation": (["--preprocess", "nosuch"], "no normalisation called 'nosuch'"),
    "a size without width": (["--input-size", "96"], "'96' is no size"),
    "a size of words": (["--input-size", "axb"], "'axb' is no size"),
    "a size of zero": (["--input-size", "0x128"], "'0x128' is no size"),
    "a size with a sign": (["--input-size", "-96x128"], "'-96x128' is no size"),
    "an input that is too small": (["--input-size", "32x128"], "32 x 128 is too small"),
    "an unknown registration": (["--registration", "nosuch"], "'nosuch' is not one of"),
    "an unknown fill": (["--fill", "nosuch"], "'nosuch' is not one of"),
    "an option that does not exist": (["--nosuch"], "No such option"),
}
"""Options of the network, put behind --model icnet."""


@pytest.mark.parametrize("case", NETWORK)
def test_a_network_that_makes_no_sense(case: str, inputs: Inputs, out: Path) -> None:
    options, word = NETWORK[case]
    random = [] if "without weights" in case else ["--random-weights"]
    preset = [] if "--preset" in options else ["--preset", inputs.preset]
    outcome = zmask("build", "--model", "icnet", *random, *preset, *options, "--out", out)
    assert_refused(outcome, 2, word)
    assert contents(out.parent) == []


BUILD = {
    "weights that are both given and random": (["--weights", "own.pth"], "exclude each other"),
    "an unknown policy": (["--policy", "nosuch"], "'nosuch' is not one of"),
    "an unknown target": (["--target", "nosuch"], "'nosuch' is not one of"),
    "a batch of nothing": (["--batch", "0"], "0 is not in the range"),
    "a largest batch of nothing": (["--max-batch", "0"], "largest batch of 0"),
    "a largest batch that is no number": (["--max-batch", "many"], "'many' is not a valid integer"),
    "a GPU that does not exist": (["--compute-capability", "1.0"], "compute capability 1.0"),
    "a GPU for no engine": (
        ["--compute-capability", "8.9", "--target", "onnx"],
        "for tensorrt-rtx only",
    ),
    "an unknown rule for bad images": (["--on-bad-image", "nosuch"], "'nosuch' is not one of"),
    "an image too much": (["street.png"], "unexpected extra argument"),
}


@pytest.mark.parametrize("case", BUILD)
def test_a_build_that_makes_no_sense(case: str, inputs: Inputs, out: Path) -> None:
    options, word = BUILD[case]
    assert_refused(zmask("build", *inputs.random, *options, "--out", out), 2, word)
    assert contents(out.parent) == []


@pytest.mark.parametrize(
    "verb", ["build", "calibrate", "craft", "evaluate", "fit", "monitor", "run", "verify"]
)
def test_a_verb_without_its_arguments(verb: str, out: Path) -> None:
    assert_refused(zmask(verb), 2, "Missing", f"See zmask-export {verb} --help.")
    assert contents(out.parent) == []


def test_an_unknown_verb() -> None:
    assert_refused(zmask_process("nosuch"), 2, "No such command 'nosuch'", "zmask-export --help")


def test_shares_that_are_no_patch(inputs: Inputs, out: Path) -> None:
    for share in ("0", "-1", "1.5", "nan"):
        outcome = zmask(
            "craft", *inputs.random, "--data", inputs.camvid, "--share", share, "--out", out
        )
        assert_refused(outcome, 2, "is no patch")
    assert contents(out.parent) == []


CRAFT = {
    "a patch larger than the image": (["--size", "97x20"], 4, "A patch of 20 x 97 does not fit"),
    "a size of words": (["--size", "large"], 2, "'large' is no size"),
    "a share and a size": (["--size", "9x9", "--share", "0.1"], 2, "exclude each other"),
    "a beta above one": (["--beta", "1.5"], 2, "beta is 1.5"),
    "a beta without statistics": (["--beta", "0.5"], 2, "needs the network's calibration"),
    "a beta and an alpha": (
        ["--beta", "0.5", "--aware", "flag", "--alpha", "0.5"], 2, "two attacks",
    ),
    "an alpha below zero": (["--aware", "flag", "--alpha", "-0.5"], 2, "alpha is -0.5"),
    "an alpha of nothing": (["--alpha", "0.5"], 2, "--aware and --alpha need each other"),
    "a defense-aware attack without alpha": (["--aware", "mask"], 2, "need each other"),
    "an attack on something else": (["--aware", "score"], 2, "'score' is not one of"),
    "images of no aware attack": (["--aware-images", "2"], 2, "defense-aware"),
    "a combination that is none": (["--combine", "max"], 2, "'max' is not one of"),
    "a printability without a palette": (["--printability", "1"], 2, "need each other"),
    "a palette that is not there": (
        ["--printability", "1", "--palette", "none.txt"], 4, "none.txt cannot be read",
    ),
    "a start that is not there": (["--init", "none.png"], 4, "none.png"),
    "a step of nothing": (["--lr", "nan"], 2, "step of nan"),
    "noise with a start": (["--random", "--init", "none.png"], 2, "no use for --init"),
    "a weight below zero": (["--smoothness", "-1"], 2, "smoothness is -1.0"),
    "sizes that are no range": (["--scale", "1.2", "0.8"], 2, "Sizes from 1.2 to 0.8"),
    "a seed below zero": (["--seed", "-1"], 2, "seed is -1"),
    "a calibration that is not there": (["--calibration", "none"], 4, "none cannot be read"),
    "noise that is optimised": (["--random", "--epochs", "3"], 2, "no use for --epochs"),
    "noise with a beta": (["--random", "--beta", "0.5"], 2, "no use for --beta"),
    "noise that is too large": (["--random", "--size", "20x129"], 4, "does not fit"),
    "noise of a seed below zero": (["--random", "--seed", "-1"], 2, "seed is -1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CRAFT)
def test_a_patch_that_makes_no_sense(case: str, inputs: Inputs, out: Path) -> None:
    options, code, word = CRAFT[case]
    outcome = zmask("craft", *inputs.random, "--data", inputs.camvid, *options, "--out", out)
    assert_refused(outcome, code, word)
    assert contents(out.parent) == []


def test_a_patch_crafted_without_data(inputs: Inputs, out: Path) -> None:
    assert_refused(zmask("craft", *inputs.random, "--out", out), 2, "nothing to craft on", "--data")
    given = ("--random", "--images", "3", "--out", out)
    assert_refused(zmask("craft", *inputs.random, *given), 2, "no use for --images")
    assert contents(out.parent) == []


def test_a_defense_that_is_not_fitted_cannot_be_attacked(
    inputs: Inputs, calibration: Path, out: Path
) -> None:
    fitted = calibrations.load(calibration)
    bare = dataclasses.replace(fitted.with_header(threshold=None, fit=None), fusion=None)
    bare.save(out)
    outcome = zmask(
        "craft", *inputs.random, "--data", inputs.camvid, "--calibration", out,
        "--aware", "flag", "--alpha", "0.5", "--out", out.with_name("patch.png"),
    )  # fmt: skip
    assert_refused(outcome, 4, "no fitted fusion block", "zmask-export fit")
    assert contents(out.parent) == [out.name]


@pytest.mark.parametrize(("option", "value"), [("--images", "0"), ("--epochs", "0")])
def test_a_patch_crafted_on_nothing(option: str, value: str, inputs: Inputs, out: Path) -> None:
    outcome = zmask("craft", *inputs.random, "--data", inputs.camvid, option, value, "--out", out)
    assert_refused(outcome, 2, value)
    assert contents(out.parent) == []


@pytest.mark.parametrize("rate", ["2", "-0.1", "nan"])
def test_a_false_positive_rate_that_is_none(
    rate: str, inputs: Inputs, calibration: Path, out: Path
) -> None:
    outcome = zmask(
        "fit", *inputs.random, "--calibration", calibration, "--images", inputs.images,
        "--patch", inputs.patch, "--epochs", "1", "--target-fpr", rate, "--out", out,
    )  # fmt: skip
    assert_refused(outcome, 2, "false-positive rate")
    assert contents(out.parent) == []


def test_a_fit_on_no_image(inputs: Inputs, calibration: Path, out: Path) -> None:
    outcome = zmask(
        "fit", *inputs.random, "--calibration", calibration, "--images", inputs.images,
        "--patch", inputs.patch, "--limit", "0", "--out", out,
    )  # fmt: skip
    assert_refused(outcome, 2, "limit of 0")


def test_a_run_without_an_image(bundle: Path, out: Path) -> None:
    assert_refused(zmask("run", bundle, "--out", out), 2, "No image was given")
    assert contents(out.parent) == []


@pytest.mark.parametrize("threshold", ["-1", "nan", "high"])
def test_a_threshold_that_is_none(threshold: str, inputs: Inputs, bundle: Path, out: Path) -> None:
    outcome = zmask("run", bundle, inputs.image, "--threshold", threshold, "--out", out)
    assert_refused(outcome, 2, threshold)
    assert contents(out.parent) == []


def test_a_bundle_that_never_masks_cannot_be_evaluated(
    inputs: Inputs, detect_bundle: Path, out: Path
) -> None:
    outcome = zmask("evaluate", detect_bundle, "--data", inputs.camvid, "--patch", inputs.patch)
    assert_refused(outcome, 2, "never masks", "--policy gated")
    assert contents(out.parent) == []


PRESETS = {
    "no YAML": ("a: [b", 4, "not valid YAML"),
    "no mapping": ("- a\n- b\n", 4, "is wrong"),
    "an unknown field": ("colour: red\n", 4, "colour"),
    "a missing field": (None, 4, "grid"),
    "a kernel larger than the grid": ("shallow_kernels: [[31, 20]]\n", 2, "larger than the grid"),
    "no kernel": ("deep_kernels: []\n", 2, "deep_kernels"),
    "a word as size": ("input_size: large\n", 4, "input_size"),
    "an input of zero": ("input_size: [0, 128]\n", 4, "input_size"),
    "a negative tolerance": ("tolerances: {fp32: {score_rtol: -1}}\n", 4, "tolerances"),
    "no tolerances": ("tolerances: {}\n", 4, "tolerances"),
}


@pytest.mark.parametrize("case", PRESETS)
def test_a_broken_preset(case: str, inputs: Inputs, tmp_path: Path, out: Path) -> None:
    text, code, word = PRESETS[case]
    good = inputs.preset.read_text()
    if text is None:
        broken = good.replace("grid: [30, 40]\n", "")
    elif case.startswith("no ") and "{" not in text and "deep" not in text:
        broken = text
    else:
        # YAML keeps the last of two equal keys.
        broken = good + text
    preset = tmp_path / "broken.yaml"
    preset.write_text(broken)
    outcome = zmask(
        "build", "--model", "icnet", "--random-weights", "--preset", preset, "--out", out
    )
    assert_refused(outcome, code, word)
    assert contents(out.parent) == []

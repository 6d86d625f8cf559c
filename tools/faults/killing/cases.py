"""The verbs that are killed: their command lines, and what they begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from killing.checks import Files
from killing.inputs import Inputs

VERBS = ("build", "calibrate", "fit", "craft", "evaluate")
CALIBRATION = "street.safetensors"
EPOCHS = 40
"""Of a patch; progress is kept after each."""


@dataclass(frozen=True)
class Case:
    """A verb with its arguments; relative paths start in the folder where it works.

    Attributes:
        name: for people.
        arguments: of the command line.
        before: files to begin with.
        share: how many of a verb's runs, against its other cases.
    """

    name: str
    arguments: tuple[str, ...]
    before: Files = field(default_factory=dict)
    share: float = 1


Run = Callable[[Case], Files]
"""Runs a case undisturbed: the files that are there then."""


def cases(verb: str, inputs: Inputs, run: Run, *, compiler: bool) -> list[Case]:
    """What to kill of a verb.

    Args:
        verb: one of ``VERBS``.
        inputs: what the command lines name.
        run: makes what this verb takes from another.
        compiler: whether some builds compile an engine.
    """
    if verb == "calibrate":
        return [_calibrate(inputs)]
    if verb == "craft":
        return [_craft(inputs)]
    statistics = run(_calibrate(inputs))
    if verb == "fit":
        return [_fit(inputs, statistics)]
    inputs.fitted.write_bytes(run(_fit(inputs, statistics))[CALIBRATION])
    if verb == "build":
        # What is there, and is replaced, is another bundle.
        old = run(_build(inputs, "--policy", "detect"))
        found = [
            _build(inputs),
            Case("build --force", (*_build(inputs).arguments, "--force"), old),
        ]
        engine = _build(inputs, target="tensorrt-rtx", share=0.7)
        return [*found, engine] if compiler else found
    for name, data in run(_build(inputs)).items():
        path = inputs.bundle.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return [_study(inputs), _evaluate(inputs)]


def _calibrate(inputs: Inputs) -> Case:
    images = ("--images", str(inputs.images), "--batch", "2", "--out", CALIBRATION, "--json")
    return Case("calibrate", ("calibrate", *inputs.network, *images))


def _fit(inputs: Inputs, statistics: Files) -> Case:
    """In place: the file is replaced."""
    on = ("--calibration", CALIBRATION, "--images", str(inputs.images), "--limit", "8", "--json")
    return Case("fit", ("fit", *inputs.network, *on, "--patch", str(inputs.patch)), statistics)


def _craft(inputs: Inputs) -> Case:
    on = ("--data", str(inputs.data), "--images", "6", "--epochs", str(EPOCHS), "--batch", "3")
    return Case("craft", ("craft", *inputs.network, *on, "--out", "patch.png", "--json"))


def _build(inputs: Inputs, *more: str, target: str = "onnx", share: float = 1) -> Case:
    given = ("--calibration", str(inputs.fitted), "--target", target, "--out", inputs.bundle.name)
    name = "build" if target == "onnx" else f"build {target}"
    return Case(name, ("build", *inputs.network, *given, *more, "--json"), share=share)


def _study(inputs: Inputs) -> Case:
    given = ("--study", str(inputs.study), "--out", "results", "--json")
    return Case("evaluate --study", ("evaluate", *given))


def _evaluate(inputs: Inputs) -> Case:
    given = ("--data", str(inputs.data), "--patch", str(inputs.patch), "--html", "page.html")
    return Case("evaluate", ("evaluate", str(inputs.bundle), *given, "--json"), share=0.4)

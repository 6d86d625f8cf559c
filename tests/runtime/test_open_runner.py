"""Which runner is opened, with what, and what is said of those that were passed over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.stand_ins import Opened, Recorder, checked, engine_info, manifest
from zmask_export.backends.tensorrt import Flavour
from zmask_export.errors import BackendError, BackendUnavailableError, BundleError
from zmask_export.runtime import choice
from zmask_export.runtime.choice import Backend, Choice, of_graph, open_runner, runner_files
from zmask_export.runtime.inputs import BatchLimit

GRAPH = "protected.onnx"
ENGINE: dict[Flavour, str] = {
    "tensorrt": "protected.tensorrt.engine",
    "tensorrt-rtx": "protected.tensorrt-rtx.engine",
}
BOTH = (engine_info("tensorrt-rtx", 4), engine_info("tensorrt"))  # not in the order of speed
FILES = (*ENGINE.values(), GRAPH)


class Machine:
    """Where TensorRT runs or not: flavour to why it cannot."""

    def __init__(self) -> None:
        self.refuses: dict[str, BackendError] = {}

    def tensorrt(self, data: bytes, flavour: str, capabilities: Any) -> Opened:
        if flavour in self.refuses:
            raise self.refuses[flavour]
        return Opened(data, flavour, capabilities)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One on which every runner can be opened, and none runs a graph."""
    made = Machine()
    monkeypatch.setattr(choice, "TensorRtRunner", made.tensorrt)
    monkeypatch.setattr(choice, "OnnxRuntimeRunner", Opened)
    return made


def _opened(found: Choice) -> tuple[tuple[object, ...], dict[str, object]]:
    assert isinstance(found.runner, Opened)
    return found.runner.arguments, found.runner.options


@pytest.mark.parametrize(
    ("backend", "files"),
    [
        ("auto", (ENGINE["tensorrt-rtx"], ENGINE["tensorrt"], GRAPH)),
        ("onnxruntime", (GRAPH,)),
        ("onnxruntime-cpu", (GRAPH,)),
        ("onnxruntime-cuda", (GRAPH,)),
        ("tensorrt", (ENGINE["tensorrt"],)),
        ("tensorrt-rtx", (ENGINE["tensorrt-rtx"],)),
    ],
)
def test_only_what_may_run_is_kept_of_a_bundle(backend: Backend, files: tuple[str, ...]) -> None:
    assert runner_files(manifest(*BOTH), backend) == files


@pytest.mark.parametrize(
    ("backend", "device"),
    [
        ("auto", "auto"),
        ("onnxruntime", "auto"),
        ("onnxruntime-cpu", "cpu"),
        ("onnxruntime-cuda", "cuda"),
    ],
)
@pytest.mark.usefixtures("machine")
def test_the_graph_is_opened_as_it_was_built(backend: Backend, device: str) -> None:
    bundle = checked(manifest(precision="bf16"), GRAPH)
    found = open_runner(bundle, backend, threads=3)
    options = {"threads": 3, "device": device, "precision": "bf16"}
    assert _opened(found) == ((GRAPH.encode(),), options)
    assert found.passed_over == ()
    assert _opened(open_runner(bundle, backend, threads=0))[1]["threads"] == 0


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.usefixtures("machine")
def test_an_engine_is_opened_as_it_was_built(flavour: Flavour) -> None:
    found = open_runner(checked(manifest(*BOTH), *FILES), flavour, threads=1)
    assert _opened(found) == ((ENGINE[flavour].encode(), flavour, ("8.6", "8.9")), {})
    assert found.limit == (BatchLimit(8) if flavour == "tensorrt" else BatchLimit(4, exact=True))
    assert found.passed_over == ()


@pytest.mark.usefixtures("machine")
def test_auto_takes_the_fastest_engine() -> None:
    found = open_runner(checked(manifest(*BOTH), *FILES), "auto", threads=0)
    assert _opened(found)[0][1] == "tensorrt"
    found = open_runner(checked(manifest(BOTH[0]), *FILES), "auto", threads=0)
    assert _opened(found)[0][1] == "tensorrt-rtx"


def test_auto_says_why_it_took_the_next_engine(machine: Machine) -> None:
    machine.refuses["tensorrt"] = BackendUnavailableError("It is not here.", fix="Install it.")
    found = open_runner(checked(manifest(*BOTH), *FILES), "auto", threads=0)
    assert _opened(found)[0][1] == "tensorrt-rtx"
    assert found.passed_over == ("It is not here.",)
    assert found.limit == BatchLimit(4, exact=True)


def test_auto_says_why_it_took_no_engine(machine: Machine) -> None:
    machine.refuses["tensorrt"] = BackendUnavailableError("It is not here.", fix="Install it.")
    machine.refuses["tensorrt-rtx"] = BackendError("It is refused.", fix="Build again.")
    found = open_runner(checked(manifest(*BOTH), *FILES), "auto", threads=0)
    assert _opened(found)[0] == (GRAPH.encode(),)
    assert found.passed_over == ("It is not here.", "It is refused.")
    assert found.limit == BatchLimit()


def test_an_engine_by_name_is_that_one_or_an_error(machine: Machine) -> None:
    machine.refuses["tensorrt"] = BackendUnavailableError("It is not here.", fix="Install it.")
    with pytest.raises(BackendUnavailableError, match="It is not here"):
        open_runner(checked(manifest(*BOTH), *FILES), "tensorrt", threads=0)


@pytest.mark.parametrize(
    ("backend", "lacking"), [("auto", ENGINE["tensorrt"]), ("onnxruntime", GRAPH)]
)
@pytest.mark.usefixtures("machine")
def test_a_bundle_that_lacks_what_it_lists_is_refused(backend: Backend, lacking: str) -> None:
    files = [name for name in FILES if name != lacking]
    with pytest.raises(BundleError, match=f"has no {lacking}"):
        open_runner(checked(manifest(*BOTH), *files), backend, threads=0)


@pytest.mark.parametrize(("batch", "limit"), [(None, BatchLimit()), (2, BatchLimit(2, exact=True))])
def test_a_graph_takes_its_fixed_batch_or_any(batch: int | None, limit: BatchLimit) -> None:
    runner = Recorder()
    assert of_graph(manifest(batch=batch), runner) == Choice(runner, limit, ())
    reasons = ("It is not here.",)
    assert of_graph(manifest(batch=batch), runner, reasons) == Choice(runner, limit, reasons)

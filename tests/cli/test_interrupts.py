"""Ctrl-C ends a run, even where a library swallows it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import contents, zmask
from zmask_export.cli import interrupts
from zmask_export.cli.console import ConsoleReporter
from zmask_export.errors import BackendError
from zmask_export.pipeline import build as build_module


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """As in a terminal: a shell's background job would ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _swallow_an_interrupt() -> None:
    """As a library does that imports lazily and catches everything."""
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_swallowed_interrupt_ends_the_next_step() -> None:
    with interrupts.remembered():
        interrupts.check()
        with ConsoleReporter().bar("step", 1) as advance:
            advance(1)
        _swallow_an_interrupt()
        assert interrupts.happened()
        with pytest.raises(KeyboardInterrupt), ConsoleReporter().bar("step", 1) as advance:
            advance(1)
        with pytest.raises(KeyboardInterrupt), ConsoleReporter().bar("step", 1):
            pass


def test_the_handler_of_before_comes_back_and_the_next_run_starts_fresh() -> None:
    with interrupts.remembered():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        _swallow_an_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupts.remembered():
        assert not interrupts.happened()


def test_an_ignored_interrupt_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.remembered():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        interrupts.check()


def test_outside_the_main_thread_nothing_is_touched() -> None:
    seen: list[object] = []

    def run() -> None:
        with interrupts.remembered():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("ends", ["fails", "goes on"])
def test_a_build_whose_interrupt_was_swallowed_says_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    opening = build_module.open_network

    def opened(*given: object, **options: object) -> object:
        _swallow_an_interrupt()
        if ends == "fails":
            raise BackendError("A module is half imported.", fix="None.")
        return opening(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(build_module, "open_network", opened)
    outcome = zmask("build", "--model", "icnet", "--target", "onnx", "--out", tmp_path / "x")
    assert outcome.code == 130
    assert outcome.out == ""
    assert "Interrupted." in outcome.err
    assert "Error: " not in outcome.err
    assert contents(tmp_path) == []

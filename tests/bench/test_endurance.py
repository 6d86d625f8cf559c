"""The endurance command: short runs of it, and that it finds what it looks for."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import endurance
import numpy as np
import pytest
from enduring import times, work
from enduring.record import Record, lines
from enduring.stream import Noise
from enduring.work import Load

import zmask_export
from tests.conftest import ONE_THREAD
from tests.drawn import save_scene
from zmask_export.errors import BackendError, ZMaskError

COMMAND = Path(endurance.__file__)
SHORT = ("--threads", "4", "--seconds", "2", "--warm-up", "1")

Fault = Callable[[int, Any], Any]
"""The number of a call, from 1, and its true outputs, to the outputs that it gives."""
Endure = Callable[[Fault, Load], Record]


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=ONE_THREAD,
    )


def test_threads_share_an_engine_for_a_while(bundle: Path) -> None:
    done = _run(bundle, *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["frames"] == record["wall"]["whole"]["frames"] > 0
    assert record["dealt"] == record["frames"] + 4  # the warm-up
    assert record["seconds"] >= 2
    assert (record["lost"], record["errors"], record["uncaught"]) == (0, 0, 0)
    assert (record["distinct"], record["differences"], record["threads"]) == (4, 0, 4)
    assert record["repeats"] == record["dealt"] - 4
    assert record["memory"]["start_mb"] > record["memory"]["loaded_mb"] > 50
    assert record["flag_rate"] is None
    assert record["machine"]["versions"]["onnxruntime"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(20):
        save_scene(folder / f"{seed}.png", seed)
    return folder


def test_clean_frames_are_flagged_at_the_calibrated_rate(bundle: Path, pictures: Path) -> None:
    # 10 pictures of 3 views each, twice.
    done = _run(
        bundle, "--threads", 2, "--frames", 60, "--fps", 1, "--warm-up", 0, "--images", pictures,
        "--fpr", 0.25, "--views", 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "60 frames in " in done.stdout
    assert "0.017 h at 1 frames a second" in done.stdout
    assert "60 dealt out with the warm-up, 0 lost, 0 errors, 0 uncaught" in done.stdout
    assert "30 different frames, 30 repeats, 0 differences" in done.stdout
    assert "for 25.0% on 10 clean pictures; on 10 others, 3 views each" in done.stdout
    assert ", inside the 95 % interval by permutation" in done.stdout
    assert done.stdout.endswith("\nstood it\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--frames", 3, "--seconds", 3), 2, "exclude each other"),
        (("--images", "IMAGES", "--fpr", 1.5), 2, "A false-positive rate of 1.5"),
        (("--images", "IMAGES/none"), 4, "is not a folder"),
    ],
)
def test_what_cannot_be_done_is_an_error_of_ours(
    arguments: tuple[object, ...], code: int, words: str, bundle: Path, pictures: Path
) -> None:
    given = [str(a).replace("IMAGES", str(pictures)) for a in arguments]
    with pytest.raises(ZMaskError, match=words) as caught:
        endurance.main.main([str(bundle), *given], standalone_mode=False)
    assert caught.value.exit_code == code


def test_what_is_no_bundle_is_an_error_of_ours(tmp_path: Path) -> None:
    done = _run(tmp_path, *SHORT)
    assert done.returncode == 4
    assert "is no bundle" in done.stderr


@pytest.fixture
def endure(detect_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Endure:
    """Endure a load with a fault in the runner."""

    def with_fault(fault: Fault, load: Load) -> Record:
        engine = zmask_export.load(detect_bundle, threads=1)
        sound, calls, lock = engine.runner.run, 0, threading.Lock()

        def faulty(inputs: Any) -> Any:
            nonlocal calls
            with lock:
                calls += 1
                number = calls
            return fault(number, sound(inputs))

        monkeypatch.setattr(engine.runner, "run", faulty)
        return endurance.endure(engine, Noise(engine.manifest.input_size), load)

    return with_fault


def _raise(error: Exception) -> Fault:
    def fault(number: int, outputs: Any) -> Any:
        if number > 6:
            raise error
        return outputs

    return fault


def test_errors_are_counted(endure: Endure) -> None:
    record = endure(_raise(BackendError("It broke.", fix="None.")), Load(2, frames=20, warm_up=0))
    assert (record.errors, record.uncaught, record.frames, record.lost) == (14, 0, 6, 0)
    assert record.faults == ["frames raised errors"]
    assert any("14 x BackendError: It broke." in line for line in lines(record))


def test_errors_that_are_not_ours_are_uncaught(endure: Endure) -> None:
    record = endure(_raise(RuntimeError("?")), Load(2, frames=20, warm_up=0))
    assert (record.errors, record.uncaught, record.frames, record.lost) == (0, 14, 6, 0)
    assert record.faults == ["frames raised errors"]


def test_one_bit_is_a_difference(endure: Endure) -> None:
    def fault(number: int, outputs: Any) -> Any:
        if number == 15:
            outputs["soft_mask"] = outputs["soft_mask"].copy()
            outputs["soft_mask"].view(np.uint32)[0, 0, 0, 0] ^= 1
        return outputs

    record = endure(fault, Load(1, frames=20, warm_up=0))
    assert (record.repeats, record.differences) == (16, 1)
    assert record.faults == ["results differed"]


def test_frames_that_never_come_back_are_lost(endure: Endure) -> None:
    released = threading.Event()

    def fault(number: int, outputs: Any) -> Any:
        if number == 5:
            released.wait()
        return outputs

    try:
        record = endure(fault, Load(2, frames=20, warm_up=1, patience=0.5))
    finally:
        released.set()
    assert (record.dealt, record.lost) == (22, 1)
    assert record.faults == ["frames were lost"]


def test_growth_is_found(endure: Endure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "INTERVAL", 0.002)
    monkeypatch.setattr(times, "FEWEST", 10)
    held: list[mmap.mmap] = []
    opened: list[int] = []

    def fault(number: int, outputs: Any) -> Any:
        held.append(mmap.mmap(-1, 400_000))  # the heap might have room left from another test
        held[-1].write(bytes(400_000))
        opened.append(os.open(os.devnull, os.O_RDONLY))
        threading.Event().wait(3e-4 * number)
        return outputs

    try:
        record = endure(fault, Load(1, frames=120, warm_up=5))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    assert record.wall.verdict == "grows"
    assert record.memory.verdict == "grows"
    assert record.memory.last_half_mb == pytest.approx(0.4 * 50, rel=0.3)  # frames 65 to 115
    assert record.descriptors.verdict == "grows"
    assert record.process_threads.verdict == "flat"
    assert {"the latency grows", "the memory grows", "the open files grow"} <= set(record.faults)

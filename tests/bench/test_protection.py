from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import protection
import psutil
import pytest
from click.testing import CliRunner
from measuring.command import exit_code
from overhead.bars import bars_of
from overhead.record import Bar, Record, Timing

from tests.conftest import ONE_THREAD
from tests.drawn import PRESET
from zmask_export.backends.gpu import gpu_count
from zmask_export.backends.tensorrt import available

COMMAND = Path(protection.__file__)
PNG = b"\x89PNG\r\n"


def in_process(*arguments: str) -> str:
    """Run the command here, on networks of the tests too; what it prints."""
    done = CliRunner().invoke(
        protection.main, [*arguments, "--threads", "1"], catch_exceptions=False
    )
    assert done.exit_code == 0
    return done.stdout


def by_itself(out: Path, *arguments: str) -> Record:
    """Run the command as a user does; the record."""
    done = subprocess.run(
        [sys.executable, str(COMMAND), *arguments, "--out", str(out), "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=ONE_THREAD,
    )
    assert done.returncode == 0, done.stderr
    return Record.model_validate_json(out.read_bytes())


@pytest.fixture(scope="module")
def quick(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, str, bytes]:
    """A quick run of everything but engines: the record, what was printed, the picture."""
    folder = tmp_path_factory.mktemp("quick")
    out, plot = folder / "bench.json", folder / "bench.png"
    printed = in_process(
        *("--model", "tiny", "--preset", str(tiny), "--quick", "--batch", "1", "--batch", "4"),
        *("--rounds", "2", "--out", str(out), "--plot", str(plot)),
        *("--skip", "memory", "--skip", "engines"),
    )
    return Record.model_validate_json(out.read_bytes()), printed, plot.read_bytes()


def _key(timing: Timing) -> tuple[str, str, str | None, int]:
    return timing.runner, timing.case, timing.frame, timing.batch


def test_a_quick_run_times_everything_side_by_side(quick: tuple[Record, str, bytes]) -> None:
    record, _, _ = quick
    cpu = Counter(t.runner for t in record.timings if t.runner.endswith("cpu"))
    assert cpu == {"onnxruntime-cpu": 2 * 7, "pytorch-cpu": 2 * 5}
    assert all(len(t.ms.rounds) == 2 for t in record.timings)
    assert {t.batch for t in record.timings} == {p.batch for p in record.parts} == {1, 4}
    assert record.quick
    assert record.input_size == (96, 128)
    assert record.taps == ("stem", "mid", "tip")


def test_ratios_are_those_of_the_rounds(quick: tuple[Record, str, bytes]) -> None:
    timings = {_key(t): t for t in quick[0].timings}
    for (runner, case, frame, batch), timing in timings.items():
        bare = timings[runner, "bare", None, batch].ms.rounds
        if case == "bare":
            assert timing.over_bare is None
        else:
            assert timing.over_bare is not None
            expected = [t / b for t, b in zip(timing.ms.rounds, bare, strict=True)]
            assert list(timing.over_bare.rounds) == pytest.approx(expected)
        if runner == "pytorch-cpu":
            twin = timings["onnxruntime-cpu", case, frame, batch].ms.rounds
            assert timing.over_deployed is not None
            expected = [t / b for t, b in zip(timing.ms.rounds, twin, strict=True)]
            assert list(timing.over_deployed.rounds) == pytest.approx(expected)


def test_the_cascade_is_compared(quick: tuple[Record, str, bytes]) -> None:
    cascade = quick[0].cascade
    assert cascade is not None
    assert [tap.tap for tap in cascade.taps] == ["stem", "tip"]  # those with the fewest channels
    assert cascade.worst_difference < 1e-5
    assert 0 < cascade.worst_error < 1e-5
    literal = sum(tap.literal_ms.median for tap in cascade.taps)
    deployed = sum(tap.deployed_ms.median for tap in cascade.taps)
    assert cascade.speedup.median == pytest.approx(literal / deployed)


def test_every_tap_has_a_floor(quick: tuple[Record, str, bytes]) -> None:
    record, printed, _ = quick
    floor = record.floor
    assert floor is not None
    assert [tap.tap for tap in floor.taps] == list(record.taps)
    assert floor.floor_ms == pytest.approx(sum(tap.floor_ms for tap in floor.taps))
    assert 0 < floor.floor_ms < floor.measured_ms
    assert f"{floor.measured_ms / floor.floor_ms:.2f}" in printed


def test_curves_grow_over_what_they_say(quick: tuple[Record, str, bytes]) -> None:
    curves = {curve.over: curve for curve in quick[0].scaling}
    assert set(curves) == {"channels", "taps"}
    assert [p.label for p in curves["channels"].points] == ["64", "2048"]
    assert [p.x for p in curves["taps"].points] == [2, 3]
    for curve in curves.values():
        assert all((p.bare_ms is None) == (curve.over == "channels") for p in curve.points)


def test_what_is_not_here_is_named(quick: tuple[Record, str, bytes]) -> None:
    record, printed, _ = quick
    left = {note.what: note.reason for note in record.left_out}
    assert {"torch.compile", "growth over resolution"} <= set(left)
    assert ("ONNX Runtime on CUDA" in left) == (gpu_count() == 0)
    assert all(f"left out: {what}. {reason}" in printed for what, reason in left.items())


def test_everything_is_shown(quick: tuple[Record, str, bytes]) -> None:
    record, printed, picture = quick
    for text in ("Time a run", "Where the time goes", "Cascade stage", "Floor", "Scaling", "Bars"):
        assert text in printed
    assert record.machine.cpu in " ".join(printed.split())
    assert picture.startswith(PNG)


def test_bars_stand_beside_their_figures(quick: tuple[Record, str, bytes]) -> None:
    record = quick[0]
    cascade = record.cascade
    assert cascade is not None
    figures = [cascade.worst_difference, cascade.worst_error]
    assert [bar.measured for bar in record.bars] == figures
    assert all(bar.kept for bar in record.bars)
    whole = record.model_copy(update={"model": "icnet", "taps": ("stem", "tip")})
    as_icnet = bars_of(whole)
    # The stage is not what it is for some taps alone.
    assert len(bars_of(whole.model_copy(update={"taps": record.taps}))) == len(as_icnet) - 1
    timings = {_key(t): t.over_bare for t in record.timings}
    over = timings["onnxruntime-cpu", "gated", "attacked", 1]
    assert over is not None
    assert [bar.limit for bar in as_icnet] == [250, 1e-5, 1e-5, 1.25, 1.25, 2.0]
    assert as_icnet[-1].measured == over.median
    assert record.floor is not None
    above = record.floor.measured_ms - record.floor.floor_ms
    bare = next(t for t in record.timings if t.runner == "onnxruntime-cpu").ms.median
    assert as_icnet[-1].floor == pytest.approx(over.median - above / bare)
    assert as_icnet[0].floor is None
    for model, preset, limit in (
        ("ddrnet", "paper", 1.4),
        ("bisenet", "paper", 1.4),
        ("bisenet", "bisenet", None),
        ("ssd300", "ssd300", 1.5),
    ):
        found = bars_of(record.model_copy(update={"model": model, "preset": preset}))
        assert [bar.limit for bar in found[2:]] == ([] if limit is None else [limit, limit])


@pytest.mark.parametrize(("measured", "most", "least"), [(1, True, False), (3, False, True)])
def test_a_bar_is_kept_on_its_side(measured: float, most: bool, least: bool) -> None:
    assert Bar(what="", measured=measured, limit=2, at="most").kept == most
    assert Bar(what="", measured=measured, limit=2, at="least").kept == least


def test_another_size_has_no_bars(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    in_process(
        *("--model", "tiny", "--preset", str(tiny), "--input-size", "96x96"),
        *("--out", str(out), "--only", "floor", "--skip", "floor"),
    )
    record = Record.model_validate_json(out.read_bytes())
    assert (record.bars, record.timings, record.cascade, record.floor) == ((), (), None, None)
    assert [note.what for note in record.left_out] == ["bars"]


@pytest.mark.parametrize(
    ("sections", "has"),
    [
        (["policies"], {"timings"}),
        (["pytorch"], {"timings"}),
        (["floor"], {"floor"}),
        (["literal", "parts"], {"cascade", "parts"}),
    ],
)
def test_a_section_is_taken_alone(
    tiny: Path, tmp_path: Path, sections: list[str], has: set[str]
) -> None:
    out = tmp_path / "bench.json"
    in_process(
        *("--model", "tiny", "--preset", str(tiny), "--quick", "--batch", "1", "--out", str(out)),
        *[word for name in sections for word in ("--only", name)],
    )
    record = Record.model_validate_json(out.read_bytes())
    measured = ("timings", "parts", "cascade", "floor", "memory", "scaling")
    assert {name for name in measured if getattr(record, name)} == has
    runners = {timing.runner.rpartition("-")[0] for timing in record.timings}
    assert runners == {"policies": {"onnxruntime"}, "pytorch": {"pytorch"}}.get(sections[0], set())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--model", "none"], 2, "no network called 'none'"),
        (["--model", "icnet", "--input-size", "9"], 2, "'9' is no size"),
        (["--model", "icnet", "--preset", "none.yaml"], 2, "no preset 'none.yaml'"),
        (["--model", "icnet", "--calibration", "none"], 4, "none cannot be read"),
        (["--model", "icnet", "--out", f"{__file__}/bench.json"], 5, "bench.json"),
        (["--model", "icnet", "--skip", "lunch"], 2, "lunch"),
        (["--model", "icnet", "--only", "lunch"], 2, "lunch"),
    ],
)
def test_a_wrong_option_is_an_error_of_two_lines(
    arguments: list[str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["protection.py", *arguments])
    assert exit_code(protection.main) == code
    assert says in capsys.readouterr().err


@pytest.mark.skipif(available("tensorrt-rtx") is not None, reason="no tensorrt-rtx here")
@pytest.mark.slow
def test_the_command_measures_engines_of_a_network(tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(PRESET, "utf-8")
    record = by_itself(
        tmp_path / "bench.json",
        *("--model", "icnet", "--preset", str(preset), "--rounds", "2", "--batch", "1"),
        *("--only", "policies", "--only", "memory", "--only", "engines"),
    )
    engines = {e.case: e for e in record.memory if e.flavour == "tensorrt-rtx"}
    assert set(engines) == {"bare", "detect", "gated"}
    bare, gated = engines["bare"], engines["gated"]
    assert bare.weights_over_bare is None
    # The second pass uses the first one's weights.
    assert gated.weights_over_bare == pytest.approx(gated.weight_bytes / bare.weight_bytes)
    assert gated.weights_over_bare < 1.5
    assert {bar.what for bar in record.bars} >= {
        "detect engine, activation memory over bare",
        "gated engine, weights over bare",
    }
    left = {note.what for note in record.left_out}
    assert ("running tensorrt-rtx engines" in left) == (gpu_count() == 0)


def test_a_record_refuses_what_it_does_not_know(quick: tuple[Record, str, bytes]) -> None:
    values: dict[str, Any] = quick[0].model_dump()
    with pytest.raises(ValueError, match="schema_version"):
        Record.model_validate(values | {"schema_version": 2})
    with pytest.raises(ValueError, match="mood"):
        Record.model_validate(values | {"mood": "good"})


@pytest.mark.slow
def test_a_quick_run_of_a_demo_takes_less_than_a_minute(tmp_path: Path) -> None:
    # Processor time: what others do on the machine does not count.
    before = psutil.Process().cpu_times()
    record = by_itself(tmp_path / "bench.json", "--model", "icnet", "--quick")
    after = psutil.Process().cpu_times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 60
    for name in ("timings", "parts", "cascade", "floor", "scaling"):
        assert getattr(record, name), name
    assert bool(record.memory) == (available("tensorrt-rtx") is None)

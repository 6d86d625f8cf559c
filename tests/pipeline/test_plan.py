"""plan, through its entry point, and the engines' forms of a graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from lowerings import cascade_graph, measure, rank_correlation

from tests.conftest import zmask
from tests.small import (
    as_float,
    exported,
    fresh,
    random_calibration,
    tiny_bare,
    tiny_defense,
    tiny_images,
)
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.defense.cascade import literal_heatmap
from zmask_export.errors import ParityError
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.fuse.plan import candidates
from zmask_export.pipeline.engines import compile_smallest, engine_graphs
from zmask_export.pipeline.progress import Silent
from zmask_export.spec import DefenseSpec, Policy

ICNET = ("plan", "--model", "icnet", "--random-weights", "--input-size", "96x128")


def test_json_holds_every_tap_with_its_cost() -> None:
    record = zmask(*ICNET, "--json").record
    assert record["machine"] == "cpu"
    taps = {row["tap"]: row for row in record["taps"]}
    assert {"res_block5", "convbnrelu1_2"} <= set(taps)
    for row in taps.values():
        assert 0 < row["multiply_adds"] < row["literal_additions"]
        assert row["estimated_seconds"] > 0
        assert "forms" not in row


def test_all_forms_are_sorted_and_hold_the_chosen_one() -> None:
    record = zmask(*ICNET, "--all", "--json").record
    for row in record["taps"]:
        times = [form["estimated_seconds"] for form in row["forms"]]
        assert times == sorted(times)
        assert len(times) > 3
        assert row["estimated_seconds"] in times


def test_table_names_the_form_of_every_tap() -> None:
    shown = zmask(*ICNET, "--for", "small-gpu").out
    assert "planned for small-gpu" in shown
    assert "multiply-adds in place of" in shown
    assert "channels" in shown


def test_a_gpu_takes_no_strips_inside_loops() -> None:
    record = zmask(*ICNET, "--for", "gpu", "--json").record
    assert all(row["strips"] == 1 for row in record["taps"] if row["block"] is not None)


def test_an_unknown_tap_is_refused() -> None:
    outcome = zmask(*ICNET, "--deep", "nosuch")
    assert outcome.code == 2
    assert "nosuch" in outcome.err


@pytest.fixture(scope="module")
def defense() -> DefenseSpec:
    return DefenseSpec(
        shallow=("a",),
        deep=("a",),
        shallow_kernels=((8, 12), (4, 6)),
        deep_kernels=((8, 12),),
        grid=(40, 60),
    )


def test_every_measured_form_gives_eq_3(defense: DefenseSpec) -> None:
    z = np.random.default_rng(1).standard_normal((1, 96, 20, 30), dtype=np.float32)
    expected = literal_heatmap(
        torch.from_numpy(z).double(), defense.shallow_kernels, defense.grid, "paper"
    )
    for plan in candidates(defense, "a", (96, 20, 30)):
        got = OnnxRuntimeRunner(cascade_graph(plan, defense.grid), threads=1).run({"z": z})
        np.testing.assert_allclose(got["shallow"], expected.numpy(), rtol=1e-5)


def test_measuring_takes_every_form(defense: DefenseSpec) -> None:
    plans = candidates(defense, "a", (96, 20, 30))[:3]
    assert len(measure(plans, defense.grid, rounds=1, threads=1)) == 3
    assert rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]) == pytest.approx(1)
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)


def test_engine_forms_are_held_against_the_verified_graph() -> None:
    calibration = random_calibration(tiny_bare(), tiny_defense())
    options = FuseOptions(Policy.GATED)
    verified = fuse(fresh(exported()), calibration, options).to_bytes()
    frame = tiny_images(1)[0]
    graphs = engine_graphs(exported(), calibration, options, verified, frame)
    assert graphs
    image = as_float(frame[None])
    threshold = np.asarray([1.0], np.float32)
    want = OnnxRuntimeRunner(verified).run({"image": image, "threshold": threshold})
    for graph in graphs:
        got = OnnxRuntimeRunner(graph).run({"image": image, "threshold": threshold})
        np.testing.assert_allclose(got["heatmap_deep"], want["heatmap_deep"], rtol=1e-5, atol=1e-7)

    other = calibration.with_header(defense=tiny_defense("paper"))
    with pytest.raises(ParityError, match="differs from the verified one"):
        engine_graphs(exported(), other, options, verified, frame)


def test_the_engine_with_the_least_activation_memory_is_kept() -> None:
    pytest.importorskip("tensorrt_rtx")
    calibration = random_calibration(tiny_bare(), tiny_defense())
    raw = fuse(fresh(exported()), calibration, FuseOptions(Policy.DETECT, raw_taps=True)).to_bytes()
    plain = fuse(fresh(exported()), calibration, FuseOptions(Policy.DETECT)).to_bytes()
    assert onnx.load_from_string(plain) != onnx.load_from_string(raw)

    def compiled(*graphs: bytes) -> int:
        (engine,), _ = compile_smallest(
            graphs, ["tensorrt-rtx"], batch=None, largest=1, capabilities=(), reporter=Silent()
        )
        return engine.activation_bytes or 0

    each = compiled(plain), compiled(raw)
    assert compiled(plain, raw) == min(each)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from overhead import scaling
from overhead.graphs import Graphs, build_graphs, calibration_for, open_for_timing, to_model

from zmask_export.pipeline.network import NetworkOptions


@pytest.fixture(scope="module")
def graphs(tiny: Path) -> Graphs:
    opened = open_for_timing(NetworkOptions("tiny", preset=str(tiny)))
    return build_graphs(opened, calibration_for(opened, None))


@pytest.fixture
def opened_models(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every graph that a curve opens, in order."""
    models: list[bytes] = []
    real = scaling.open_session

    def keep(model: bytes, *arguments: Any) -> Any:
        models.append(model)
        return real(model, *arguments)

    monkeypatch.setattr(scaling, "open_session", keep)
    return models


def _taps(model: bytes) -> set[str]:
    names = [(node.name or "").split("/") for node in to_model(model).graph]
    return {name[1] for name in names if name[0] == "zscore"}


def test_more_taps_are_fused_into_the_same_network(
    graphs: Graphs, opened_models: list[bytes]
) -> None:
    curve = scaling.over_taps(graphs, 1, 1, quick=False)
    assert [_taps(model) for model in opened_models[1::2]] == [
        {"stem", "mid"},  # the first of S and the first of D
        {"stem", "mid", "tip"},
    ]
    assert opened_models[::2] == [graphs.bare] * 2
    assert [point.x for point in curve.points] == [2, 3]


def test_a_network_is_exported_at_every_size(graphs: Graphs, opened_models: list[bytes]) -> None:
    curve = scaling.over_resolution(graphs, 1, 1, (0.75, 1.0))
    shapes = [tuple(to_model(model).graph.inputs[0].shape or ())[2:] for model in opened_models]
    assert shapes == [(64, 96), (64, 96), (96, 128), (96, 128)]
    assert [point.label for point in curve.points] == ["64 x 96", "96 x 128"]
    assert [len(_taps(model)) for model in opened_models] == [0, 3, 0, 3]


def test_all_curves_are_drawn(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SHARES", (0.25, 1.0))
    monkeypatch.setattr(scaling, "CHANNELS", (4, 8))
    curves = {c.over: c for c in scaling.curves(graphs, 1, 1, quick=False)}
    assert set(curves) == {"resolution", "channels", "taps"}
    assert [point.label for point in curves["resolution"].points] == ["64 x 64", "96 x 128"]
    assert all(point.bare_ms is not None for point in curves["resolution"].points)


def test_the_channels_are_those_of_the_curve(graphs: Graphs, opened_models: list[bytes]) -> None:
    scaling.over_channels(graphs, 1, 1, (4, 8))
    shapes = [tuple(to_model(model).graph.inputs[0].shape or ()) for model in opened_models]
    # 32 channels of 24 x 32 is the tap with the most.
    assert shapes == [(1, 4, 24, 32), (1, 8, 24, 32)]

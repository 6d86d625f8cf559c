from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import auroc

from zmask_export.artifacts.calibration import FitSummary, RocSummary
from zmask_export.profiling.plots import roc_corners, roc_plot, scores_plot


def _fit(clean: list[float], patched: list[float]) -> FitSummary:
    roc = RocSummary(
        auc=1.0, true_positive_rate=1.0, false_positive_rate=0.0, positives=len(patched),
        negatives=len(clean), rule="largest TPR - FPR",
    )  # fmt: skip
    return FitSummary(
        images=1, epochs=1, loss=0.0, mask_iou=1.0, clean_masked=0.0, gate_range=(0.0, 1.0),
        patches=("p.png",), roc=roc, clean_scores=tuple(clean), patched_scores=tuple(patched),
    )  # fmt: skip


def test_corners_of_known_scores() -> None:
    fpr, tpr = roc_corners(_fit([1.0, 3.0], [2.0, 4.0]))
    assert (fpr, tpr) == ([0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1])


_SCORES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(_SCORES, _SCORES)
def test_the_area_below_the_corners_is_the_auc(clean: list[float], patched: list[float]) -> None:
    fpr, tpr = roc_corners(_fit(clean, patched))
    scores = torch.tensor([*clean, *patched]) / 6
    truth = torch.tensor([0] * len(clean) + [1] * len(patched))
    assert np.trapezoid(tpr, fpr) == pytest.approx(
        float(auroc(scores, truth, task="binary")), abs=1e-6
    )


@pytest.mark.parametrize("scores", [([0.0, 0.0], [0.0]), ([0.01, 0.02], [0.5]), ([1.0], [1.0])])
def test_drawings_bear_any_scores_and_take_the_colour_of_the_page(
    scores: tuple[list[float], list[float]],
) -> None:
    fit = _fit(*scores)
    for svg in (roc_plot(fit), scores_plot(fit, 0.0)):
        assert svg.startswith("<svg")
        assert "currentColor" in svg
        assert re.search(r"#000000|black", svg) is None

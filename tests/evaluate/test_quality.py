from __future__ import annotations

import numpy as np
import pytest

from zmask_export.evaluate.bootstrap import Resamples
from zmask_export.evaluate.cells import Cell
from zmask_export.evaluate.metrics import mean_iou
from zmask_export.evaluate.quality import Clean, lost, row
from zmask_export.evaluate.segmentation import Overlaps

IMAGES = 8


def hits(share: float, spread: float = 0.0) -> Overlaps:
    """Counts of one class whose IoU over all images is ``share``."""
    amount = np.linspace(-spread, spread, IMAGES)
    counts = np.stack([1000 * (share + amount), np.full(IMAGES, 1000.0)], axis=1)
    return Overlaps(counts.round().astype(np.int64)[:, :, None])


def masked(share: float, scores: np.ndarray, *, iou: float, covered: float) -> Cell:
    whole = np.ones(IMAGES)
    return Cell(hits(share, 0.05), whole * iou, whole * covered, {"zmask": scores})


CLEAN = Clean(
    {
        "none": Cell(hits(0.8)),
        "zmask": masked(0.8, np.linspace(0, 1, IMAGES), iou=0.0, covered=0.01),
        "detectors": Cell(scores={"hn": np.zeros(IMAGES)}),
    },
    threshold=0.9,
    resamples=Resamples(IMAGES, 200),
)
PATCHED = {
    "none": Cell(hits(0.4, 0.1)),
    "zmask": masked(0.6, np.linspace(0.5, 5, IMAGES), iou=0.7, covered=0.1),
    "oracle": Cell(hits(0.65)),
    "detectors": Cell(scores={"hn": np.zeros(IMAGES), "new": np.ones(IMAGES)}),
}


def test_a_row_of_patched_images() -> None:
    found = row("L", PATCHED, CLEAN, 0.3)
    assert (found.attack, found.value) == ("L", 0.3)
    assert {n: e.value for n, e in found.miou.items()} == pytest.approx(
        {"none": 0.4, "zmask": 0.6, "oracle": 0.65}
    )
    assert found.recovered is not None
    assert found.recovered.value == pytest.approx(0.2 / 0.25)
    assert found.recovered.interval is not None
    assert found.mask_iou is not None
    assert found.mask_iou.value == pytest.approx(0.7)
    assert found.covered is not None
    assert found.covered.value == pytest.approx(0.1)
    assert found.flagged is not None
    assert found.flagged.value == pytest.approx(7 / 8)
    assert {e.images for e in found.miou.values()} == {IMAGES}


def test_detectors_are_compared_with_their_own_clean_scores() -> None:
    detection = row("L", PATCHED, CLEAN).detection
    assert set(detection) == {"zmask", "hn"}
    assert detection["hn"].auc.value == 0.5
    clean, patched = CLEAN.scores["zmask"], PATCHED["zmask"].scores["zmask"]
    pairs = np.mean([(p > c) + (p == c) / 2 for p in patched for c in clean])
    assert detection["zmask"].auc.value == pytest.approx(pairs)
    # 0.5 must be flagged for a TPR of 0.95 of eight images; half of 0, 1/7, ..., 1 lie above.
    assert detection["zmask"].fpr_at_tpr95.value == 0.5


def test_the_row_of_clean_images() -> None:
    found = row("None", CLEAN.cells, CLEAN)
    assert found.miou["zmask"].value == pytest.approx(0.8)
    assert found.flagged is not None
    assert found.flagged.value == pytest.approx(1 / 8)
    assert found.covered is not None
    assert found.covered.value == pytest.approx(0.01)
    assert (found.detection, found.mask_iou, found.recovered) == ({}, None, None)


def test_intervals_resample_whole_images() -> None:
    """The same draw by hand: images repeated as often as they were drawn."""
    interval = row("L", PATCHED, CLEAN).miou["none"].interval
    record = PATCHED["none"].record
    assert isinstance(record, Overlaps)
    drawn = np.random.default_rng((0, IMAGES)).multinomial(IMAGES, [1 / IMAGES] * IMAGES, 200)
    values = [float(mean_iou(np.repeat(record.counts, times, axis=0).sum(0))) for times in drawn]
    assert interval == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


@pytest.mark.parametrize("oracle", [0.4, 0.3])
def test_nothing_is_recovered_where_the_oracle_wins_nothing(oracle: float) -> None:
    found = row("L", PATCHED | {"oracle": Cell(hits(oracle))}, CLEAN)
    assert found.recovered is not None
    assert found.recovered.value is None


def test_what_was_not_measured_is_left_out() -> None:
    found = row("flag 0.1", {"none": PATCHED["none"]}, CLEAN, 0.1)
    assert set(found.miou) == {"none"}
    assert (found.detection, found.flagged, found.covered) == ({}, None, None)
    assert (found.mask_iou, found.recovered) == (None, None)


def test_what_is_lost_is_a_share_of_what_was() -> None:
    share = lost(hits(0.8), hits(0.6, 0.1), CLEAN.resamples)
    assert share.value == pytest.approx(0.25)
    assert share.interval is not None
    assert share.interval[0] < 0.25 < share.interval[1]
    assert lost(hits(0.0), hits(0.6), CLEAN.resamples).value is None

"""What a lower precision must keep: every bar of the contract alone is an error with exit code 3."""

from __future__ import annotations

from typing import Any

import pytest

from zmask_export.errors import ParityError
from zmask_export.spec import Tolerances
from zmask_export.verify.twins import Flip, TwinReport

LIMITS = Tolerances(
    logits_atol=0.1, logits_rtol=0.02, logits_outliers=0.001, score_rtol=0.01, mask_iou=0.99,
    heatmap_rtol=0.01, auc=0.002, quality=0.005,
)  # fmt: skip


def report(**changes: Any) -> TwinReport:
    """One that keeps the contract, but for the changes."""
    said: dict[str, Any] = {
        "precision": "fp16", "images": 2, "metric": "mIoU", "clean": (0.6, 0.6), "patched": (0.5, 0.5),
        "auc": (1.0, 1.0), "flips": (), "score_error": (0.009, 0.001), "mask_iou": (0.9, 0.995),
        "pixels": (0.0, 0.0), "tolerances": LIMITS,
    }  # fmt: skip
    return TwinReport(**(said | changes))


def flip(margin: float) -> Flip:
    return Flip(image="image 0, clean", flag=True, score=0.3, float32_score=0.2, margin=margin)


def test_what_keeps_every_bar_passes() -> None:
    report(flips=(flip(0.009),), clean=(0.5951, 0.6), auc=(0.9981, 1.0), mask_iou=None).require()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"clean": (0.594, 0.6)}, "clean mIoU 0.5940 against 0.6000"),
        ({"clean": (0.606, 0.6)}, "clean mIoU"),
        ({"patched": (0.494, 0.5)}, "patched mIoU"),
        ({"auc": (0.997, 1.0)}, "AUC"),
        ({"auc": (float("nan"), 1.0)}, "AUC"),
        ({"flips": (flip(0.011),)}, "flagged at a margin of 0.011"),
        ({"score_error": (0.011, 0.0)}, "a score off by 0.011"),
        ({"score_error": (float("nan"), 0.0)}, "a score off by nan"),
        ({"mask_iou": (0.9, 0.98)}, "mask IoU 0.9800"),
    ],
)
def test_every_bar_alone_is_an_error(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ParityError, match=word) as caught:
        report(**changes).require()
    assert caught.value.exit_code == 3

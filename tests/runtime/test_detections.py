"""What a detector says of one image, out of an engine's arrays."""

from __future__ import annotations

import numpy as np
import pytest

from zmask_export.backends.runner import Arrays
from zmask_export.runtime.detections import Detections

BOXES = np.arange(16, dtype=np.float32).reshape(4, 4)
SCORES = np.array([0.9, 0.5, 0.25, 0.0], np.float32)
LABELS = np.array([3, 1, 2, 0])


def outputs(count: int) -> Arrays:
    """One image's outputs, of which only the first ``count`` rows are objects."""
    return {"boxes": BOXES, "scores": SCORES, "labels": LABELS, "count": np.array(count)}


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_only_the_counted_rows_are_objects(count: int) -> None:
    found = Detections.of(outputs(count))
    assert len(found) == count
    np.testing.assert_array_equal(found.boxes, BOXES[:count])
    np.testing.assert_array_equal(found.scores, SCORES[:count])
    np.testing.assert_array_equal(found.labels, LABELS[:count])
    assert found.boxes.shape == (count, 4)


@pytest.mark.parametrize(("score", "count"), [(0.0, 3), (0.25, 3), (0.3, 2), (0.5, 2), (1.0, 0)])
def test_a_score_of_the_limit_itself_is_above_it(score: float, count: int) -> None:
    sure = Detections.of(outputs(3)).above(score)
    assert len(sure) == count
    np.testing.assert_array_equal(sure.boxes, BOXES[:count])
    np.testing.assert_array_equal(sure.scores, SCORES[:count])
    np.testing.assert_array_equal(sure.labels, LABELS[:count])

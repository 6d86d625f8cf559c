"""What a detector says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmask_export.backends.runner import Arrays


@dataclass(frozen=True)
class Detections:
    """Found objects, the surest first.

    Attributes:
        boxes: float32 (k, 4), x1 y1 x2 y2 in pixels of the image that the engine was given.
        scores: float32 (k,) in [0, 1], descending.
        labels: int64 (k,), classes from 1 on; 0 is the background, which is never reported.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, outputs: Arrays) -> Detections:
        """The first ``count`` rows of one image's outputs, batch dimension removed."""
        count = int(outputs["count"])
        return cls(outputs["boxes"][:count], outputs["scores"][:count], outputs["labels"][:count])

    def above(self, score: float) -> Detections:
        """Those with at least this score."""
        sure = self.scores >= score
        return Detections(self.boxes[sure], self.scores[sure], self.labels[sure])

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.scores)

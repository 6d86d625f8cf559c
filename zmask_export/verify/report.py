"""What a comparison with the reference found: the content of parity.json."""

from __future__ import annotations

from zmask_export.errors import ParityError
from zmask_export.spec import Spec, Tolerances


class Comparison(Spec):
    """One image, reference against runner.

    Attributes:
        image: name of the image.
        batch: how many images the runner took at once.
        score, score_reference: d.
        score_error: |d - d_ref| / |d_ref|.
        margin: |d_ref - threshold| / threshold, how far the image stands from the decision.
        flag, flag_reference: the decision.
        mask_iou: IoU of the covered pixels.
        output_error: largest |a - b| over the network's outputs; for a detector, over the corners of
            the boxes that have a partner, in pixels.
        outliers: share of the outputs that exceed the tolerance, or of the detections without a partner.
        predictions: share of the pixels whose class differs; 0 for a detector.
        heatmap_error: largest difference of a heatmap over the reference's maximum.
        problems: what breaks the contract; empty where it holds.
    """

    image: str
    batch: int
    score: float
    score_reference: float
    score_error: float
    margin: float
    flag: bool
    flag_reference: bool
    mask_iou: float
    output_error: float
    outliers: float
    predictions: float = 0.0
    heatmap_error: float
    problems: tuple[str, ...]


class ParityReport(Spec):
    """All comparisons of a build. ``band`` is the share around the threshold where flags may differ."""

    runner: str
    policy: str
    threshold: float
    band: float
    tolerances: Tolerances
    comparisons: tuple[Comparison, ...]

    @property
    def problems(self) -> list[str]:
        """Everything that breaks the contract."""
        return [f"{c.image} (batch {c.batch}): {p}" for c in self.comparisons for p in c.problems]

    def require(self) -> None:
        """Raise where the contract is broken.

        Raises:
            ParityError: with the first problems.
        """
        problems = self.problems
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise ParityError(
                f"The engine differs from the reference: {'; '.join(problems[:3])}{more}.",
                fix="Report this with the command that you ran; do not deploy the engine.",
            )

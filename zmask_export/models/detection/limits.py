"""A detector's limits: how many candidates and detections, above which score, with which overlap."""

from __future__ import annotations

from typing import TypeAlias

from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.ssd import SSD

from zmask_export.errors import WeightsError
from zmask_export.models.detection.ranking import require_top_k
from zmask_export.spec import DetectorLimits

Detector: TypeAlias = RetinaNet | SSD | FasterRCNN
"""The kinds of torchvision detectors that are known here."""


def apply_limits(network: Detector, limits: DetectorLimits) -> None:
    """Set what the limits name on torchvision's network, which reads it in its own forward pass.

    Args:
        network: a RetinaNet, an SSD or a FasterRCNN.
        limits: None leaves the network's own value.

    Raises:
        UsageError: more candidates or detections than a target's top-k gives.
    """
    if limits.candidates is not None:
        require_top_k(limits.candidates, "candidates")
        if isinstance(network, FasterRCNN):
            network.rpn._pre_nms_top_n["testing"] = limits.candidates
        else:
            network.topk_candidates = limits.candidates
    head = _head(network)
    if limits.detections is not None:
        require_top_k(limits.detections, "detections")
        head.detections_per_img = limits.detections
    if limits.score_threshold is not None:
        head.score_thresh = limits.score_threshold
    if limits.iou_threshold is not None:
        head.nms_thresh = limits.iou_threshold


def most_detections(network: Detector) -> int:
    """K, the most detections an image."""
    return _head(network).detections_per_img


def _head(network: Detector) -> RetinaNet | SSD | RoIHeads:
    return network.roi_heads if isinstance(network, FasterRCNN) else network


def require_classes(classes: int) -> None:
    """Refuse a detector that can find nothing.

    Raises:
        WeightsError: fewer than two classes, the background included.
    """
    if classes < 2:
        raise WeightsError(
            f"A detector of {classes} class has nothing to find: the background counts as one.",
            fix="Use weights with at least one class besides the background.",
        )

"""Faster R-CNN with proposals, RoIAlign and post-processing in plain operators."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import permute_and_flatten

from zmask_export.errors import CompileError
from zmask_export.models.detection.frame import Frame, anchors_of
from zmask_export.models.detection.ranking import Candidates, best, require_top_k, rows
from zmask_export.models.detection.roi_align import PlainRoIAlign
from zmask_export.models.detection.single_stage import feature_maps, per_class
from zmask_export.models.detection.suppression import greedy_keep
from zmask_export.spec import Size

_SMALLEST = 1e-2
"""Side under which ``RoIHeads`` drops a detection, in pixels."""


class PlainFasterRCNN(nn.Module):
    """A Faster R-CNN for images of one size, from normalised images to a fixed number of detections.

    The steps are those of ``RegionProposalNetwork.filter_proposals`` and
    ``RoIHeads.postprocess_detections``.

    Args:
        network: torchvision's, in eval mode; its modules are used, not copied.
        size: (H, W).

    Raises:
        UsageError: more proposals or detections than a target's top-k gives.
        CompileError: a RoIAlign whose number of samples follows the boxes.
    """

    def __init__(self, network: FasterRCNN, size: Size) -> None:
        super().__init__()
        self.network = network
        rpn, heads = network.rpn, network.roi_heads
        require_top_k(rpn.pre_nms_top_n(), "proposals a level")
        require_top_k(rpn.post_nms_top_n(), "proposals")
        require_top_k(heads.detections_per_img, "detections")
        pool = heads.box_roi_pool
        if pool.sampling_ratio < 1:
            raise CompileError(
                "The RoIAlign of this Faster R-CNN samples large boxes more often than small ones.",
                fix="Build it with a fixed sampling_ratio, such as torchvision's 2.",
            )
        self.frame = Frame(network.transform, size, next(network.parameters()).dtype)
        with torch.inference_mode():
            maps = feature_maps(network.backbone, self.frame.images().tensors)
            # It learns its scales from the first maps that it sees.
            pool(
                maps,
                [torch.zeros_like(self.frame.images().tensors[0, 0, :1, :4])],
                [self.frame.inner],
            )
        anchors, self.counts = anchors_of(rpn.anchor_generator, self.frame, list(maps.values()))
        self.register_buffer("anchors", anchors, persistent=False)
        self.names = [name for name in maps if name in pool.featmap_names]
        sizes = [(maps[name].shape[2], maps[name].shape[3]) for name in self.names]
        self.align = PlainRoIAlign(pool, sizes)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """boxes (N, K, 4), scores (N, K), labels (N, K) and count (N,) of images (N, 3, H, W)."""
        maps = feature_maps(self.network.backbone, self.frame.prepare(image))
        proposals, there = self._proposals(list(maps.values()))
        heads = self.network.roi_heads
        pooled = self.align([maps[name] for name in self.names], proposals)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        count, classes = proposals.shape[1], logits.shape[1]
        decoded = heads.box_coder.decode_single(deltas, proposals.flatten(0, 1))
        boxes = self.frame.clip(decoded.reshape(-1, count, classes, 4)[:, :, 1:].transpose(1, 2))
        scores = F.softmax(logits, -1).reshape(-1, count, classes)[..., 1:].transpose(1, 2)
        scores = torch.where(there[:, None], scores, -1.0)
        found = per_class(boxes, scores, count)
        valid = (found.scores > heads.score_thresh) & _large(found.boxes, _SMALLEST)
        found = found._replace(valid=valid)
        keep = greedy_keep(found.boxes, valid, found.labels, heads.nms_thresh)
        boxes, scores, labels, number = best(found, keep, heads.detections_per_img)
        return self.frame.restore(boxes), scores, labels, number

    def _proposals(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (N, R, 4) and where there is one, bool (N, R)."""
        rpn = self.network.rpn
        levels = zip(
            *rpn.head(maps),
            torch.split(self.get_buffer("anchors"), self.counts),
            self.counts,
            strict=True,
        )
        parts = [self._level(*level) for level in levels]
        boxes, scores, valid = (torch.stack(part, dim=1) for part in zip(*parts, strict=True))
        labels = torch.zeros_like(valid, dtype=torch.int64)
        found = Candidates(boxes, scores, labels, valid)
        keep = greedy_keep(boxes, valid, labels, rpn.nms_thresh)
        proposals, _, _, count = best(found, keep, rpn.post_nms_top_n())
        return proposals, torch.arange(rpn.post_nms_top_n()) < count[:, None]

    def _level(
        self, objectness: Tensor, deltas: Tensor, anchors: Tensor, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A level's surest boxes (N, K, 4), scores (N, K) and whether they count, filled up to K."""
        rpn = self.network.rpn
        h, w = objectness.shape[2:]
        each = count // (h * w)
        logits = permute_and_flatten(objectness, objectness.shape[0], each, 1, h, w).squeeze(2)
        deltas = permute_and_flatten(deltas, deltas.shape[0], each, 4, h, w)
        wanted = rpn.pre_nms_top_n()
        most = min(wanted, count)
        logits, index = logits.topk(most, dim=1)
        decoded = rpn.box_coder.decode_single(
            rows(deltas, index).flatten(0, 1), anchors[index].flatten(0, 1)
        )
        boxes = self.frame.clip(decoded.reshape(-1, most, 4))
        scores = logits.sigmoid()
        valid = _large(boxes, rpn.min_size) & (scores >= rpn.score_thresh)
        short = wanted - most
        return F.pad(boxes, (0, 0, 0, short)), F.pad(scores, (0, short)), F.pad(valid, (0, short))


def _large(boxes: Tensor, side: float) -> Tensor:
    """Where both sides of boxes (..., 4) have at least ``side`` pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= side).all(dim=-1)

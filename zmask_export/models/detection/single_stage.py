"""RetinaNet and SSD with their post-processing in plain operators."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.ssd import SSD

from zmask_export.models.detection.frame import Frame, anchors_of
from zmask_export.models.detection.ranking import Candidates, best, descending, require_top_k, rows
from zmask_export.models.detection.suppression import greedy_keep
from zmask_export.spec import Size


def feature_maps(backbone: nn.Module, image: Tensor) -> OrderedDict[str, Tensor]:
    """The backbone's maps by name; a backbone of one map calls it "0", as torchvision does."""
    features = backbone(image)
    return OrderedDict([("0", features)]) if isinstance(features, Tensor) else features


NetworkT = TypeVar("NetworkT", RetinaNet, SSD)


class _SingleStage(nn.Module, Generic[NetworkT]):
    """A detector for images of one size, from normalised images to a fixed number of detections.

    Args:
        network: torchvision's, in eval mode; its modules are used, not copied.
        size: (H, W).

    Raises:
        UsageError: more candidates or detections than a target's top-k gives.
    """

    def __init__(self, network: NetworkT, size: Size) -> None:
        super().__init__()
        require_top_k(network.topk_candidates, "candidates a level or class")
        require_top_k(network.detections_per_img, "detections")
        self.network = network
        self.frame = Frame(network.transform, size, next(network.parameters()).dtype)
        with torch.inference_mode():
            maps = self._maps(self.frame.images().tensors)
        anchors, self.counts = anchors_of(network.anchor_generator, self.frame, maps)
        self.register_buffer("anchors", anchors, persistent=False)

    def _maps(self, prepared: Tensor) -> list[Tensor]:
        return list(feature_maps(self.network.backbone, prepared).values())

    def _best(self, found: Candidates) -> tuple[Tensor, ...]:
        """The detections that survive, in pixels of the engine's image."""
        keep = greedy_keep(found.boxes, found.valid, found.labels, self.network.nms_thresh)
        boxes, scores, labels, count = best(found, keep, self.network.detections_per_img)
        return self.frame.restore(boxes), scores, labels, count


class PlainRetinaNet(_SingleStage[RetinaNet]):
    """A RetinaNet; the steps are those of ``RetinaNet.postprocess_detections``: per level the surest
    ``topk_candidates``, all levels together suppressed per class.
    """

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """boxes (N, K, 4), scores (N, K), labels (N, K) and count (N,) of images (N, 3, H, W)."""
        head = self.network.head(self._maps(self.frame.prepare(image)))
        levels = zip(
            torch.split(head["cls_logits"], self.counts, dim=1),
            torch.split(head["bbox_regression"], self.counts, dim=1),
            torch.split(self.get_buffer("anchors"), self.counts),
            strict=True,
        )
        parts = [self._level(*level) for level in levels]
        boxes, scores, labels = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        order = descending(scores)
        scores, labels = scores.gather(1, order), labels.gather(1, order)
        found = Candidates(
            rows(boxes, order)[:, None],
            scores[:, None],
            labels[:, None],
            (scores > self.network.score_thresh)[:, None],
        )
        return self._best(found)

    def _level(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        classes = logits.shape[2]
        scores = logits.sigmoid().flatten(1)
        most = min(self.network.topk_candidates, scores.shape[1])
        scores, index = scores.topk(most, dim=1)
        anchor = torch.div(index, classes, rounding_mode="floor")
        decoded = self.network.box_coder.decode_single(
            rows(deltas, anchor).flatten(0, 1), anchors[anchor].flatten(0, 1)
        )
        return self.frame.clip(decoded.reshape(-1, most, 4)), scores, index % classes


class PlainSSD(_SingleStage[SSD]):
    """An SSD; the steps are those of ``SSD.postprocess_detections``: per class the surest
    ``topk_candidates``, suppressed within their class.
    """

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """boxes (N, K, 4), scores (N, K), labels (N, K) and count (N,) of images (N, 3, H, W)."""
        head = self.network.head(self._maps(self.frame.prepare(image)))
        anchors = self.get_buffer("anchors")
        total = len(anchors)
        decoded = self.network.box_coder.decode_single(
            head["bbox_regression"].flatten(0, 1),
            anchors.expand(image.shape[0], -1, -1).flatten(0, 1),
        )
        boxes = self.frame.clip(decoded.reshape(-1, total, 4))
        by_class = F.softmax(head["cls_logits"], dim=-1)[..., 1:].transpose(1, 2)
        found = per_class(boxes, by_class, min(self.network.topk_candidates, total))
        return self._best(found._replace(valid=found.scores > self.network.score_thresh))


def per_class(boxes: Tensor, scores: Tensor, most: int) -> Candidates:
    """The surest candidates of every class, as groups; all of them count as valid.

    Args:
        boxes: (N, A, 4), the same for every class, or (N, G, A, 4).
        scores: (N, G, A) of the classes 1 to G.
        most: K.
    """
    groups = scores.shape[1]
    top, index = scores.topk(most, dim=2)
    if boxes.ndim == 3:
        picked = rows(boxes, index.flatten(1)).reshape(-1, groups, most, 4)
    else:
        picked = boxes.gather(2, index[..., None].expand(-1, -1, -1, 4))
    labels = torch.arange(1, groups + 1)[:, None].expand_as(top)
    return Candidates(picked, top, labels, top >= 0)

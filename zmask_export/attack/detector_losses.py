"""The losses of Eq. 8 and 9, as torchvision computes them for training, of a detector left as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

CLASS_LOSSES = ("classification", "loss_classifier", "loss_objectness")
"""L_CE by the names of one-stage detectors, of Faster R-CNN's heads and of its RPN."""
BOX_LOSSES = ("bbox_regression", "loss_box_reg", "loss_rpn_box_reg")
"""L1 by the same."""

Target = dict[str, Tensor]
"""What one image should give: ``boxes`` float32 (n, 4), x1 y1 x2 y2 in its pixels, none of them empty, and
``labels`` int64 (n,), from 1 on."""


def detector_losses(
    network: nn.Module, images: Sequence[Tensor], targets: Sequence[Target], seed: int
) -> dict[str, Tensor]:
    """torchvision's own losses against targets, differentiable with respect to the images.

    Only what picks the losses instead of detections is in training mode meanwhile: batch norms, dropout
    and the resizing work as they do for a detection.

    Args:
        network: torchvision's RetinaNet, SSD or Faster R-CNN, in eval mode; it comes back as it was.
        images: float (3, H, W), RGB in [0, 1].
        targets: one an image.
        seed: Faster R-CNN draws the proposals that count; torch's own randomness is not touched.

    Returns:
        The scalars of :data:`CLASS_LOSSES` and :data:`BOX_LOSSES` that the network has.
    """
    with _giving_losses(network), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return network(list(images), list(targets))


@contextlib.contextmanager
def _giving_losses(network: nn.Module) -> Iterator[None]:
    modules = [network]
    modules += [m for m in network.modules() if isinstance(m, (RegionProposalNetwork, RoIHeads))]
    before = [module.training for module in modules]
    # Not train(), which would reach every layer.
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training

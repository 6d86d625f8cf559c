"""The weights that torchvision publishes for the paper's detectors, trained on COCO."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision.models import detection

from zmask_export.artifacts.files import sha256_file
from zmask_export.errors import WeightsError

NAME = "torchvision"
"""What ``--weights`` takes for them."""

_WEIGHTS = {
    "fasterrcnn": detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "retinanet": detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
    "ssd300": detection.SSD300_VGG16_Weights.COCO_V1,
}
CLASSES = tuple(_WEIGHTS["ssd300"].meta["categories"])
"""COCO's 91 categories by number, the background first."""


def fetch(model: str) -> Path:
    """The published file, from torch's cache or downloaded into it.

    Raises:
        WeightsError: torchvision publishes none for this network, or it cannot be downloaded.
    """
    if model not in _WEIGHTS:
        raise WeightsError(
            f"torchvision publishes no weights of {model}.",
            fix=f"Give the path of a checkpoint; published are {', '.join(sorted(_WEIGHTS))}.",
        )
    url = _WEIGHTS[model].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), _prefix(model), progress=False)
    except (URLError, OSError, RuntimeError) as exc:
        raise WeightsError(
            f"torchvision's weights of {model} cannot be downloaded ({exc}).",
            fix=f"Download {url} where there is a network, and give the file with --weights.",
        ) from exc
    return path


def run_as_published(network: nn.Module, model: str, path: Path) -> None:
    """Let a network with the published weights behave as torchvision's: its batch norms add no epsilon.

    torchvision's builders do the same to these weights and to no others. The file is known by its
    sha256, a part of which is in its published name.

    Args:
        network: with the weights of the file.
        model: registered name.
        path: the file.
    """
    if model not in _WEIGHTS or not sha256_file(path).startswith(_prefix(model)):
        return
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0


def _prefix(model: str) -> str:
    return str(_WEIGHTS[model].url.rsplit("-", 1)[-1].removesuffix(".pth"))

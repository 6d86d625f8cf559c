"""The weights that torchvision publishes: found, refused, run as torchvision runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import detection

from zmask_export.errors import WeightsError
from zmask_export.models.detection import published


def _epsilons(network: nn.Module) -> set[float]:
    return {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)}


def test_a_network_without_published_weights_is_refused() -> None:
    with pytest.raises(WeightsError, match="publishes no weights of icnet") as caught:
        published.fetch("icnet")
    assert "retinanet" in caught.value.fix


def test_where_there_is_no_network_the_address_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    # An address that nothing answers, whatever machine this runs on.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="cannot be downloaded") as caught:
        published.fetch("ssd300")
    assert "ssd300_vgg16_coco" in caught.value.fix
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_cache_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    url = detection.SSD300_VGG16_Weights.COCO_V1.url
    cached = tmp_path / "checkpoints" / url.rsplit("/", 1)[-1]
    cached.parent.mkdir()
    cached.write_bytes(b"here already")
    assert published.fetch("ssd300") == cached


def test_only_the_published_file_loses_its_epsilon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"some weights")
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    published.run_as_published(network, "retinanet", path)
    published.run_as_published(network, "icnet", path)
    assert _epsilons(network) == {1e-5}
    monkeypatch.setattr(published, "_prefix", lambda model: "")
    published.run_as_published(network, "retinanet", path)
    assert _epsilons(network) == {0.0}


def test_coco_has_its_ninety_categories_and_a_background() -> None:
    assert len(published.CLASSES) == 91
    assert published.CLASSES[:2] == ("__background__", "person")

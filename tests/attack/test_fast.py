from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from tests.attack.detectors import KINDS, PATHS, detector, picture
from zmask_export.attack.fast import fast_copy, run_in_bfloat16
from zmask_export.models.taps import Taps


def _images() -> list[Tensor]:
    return [torch.from_numpy(picture(k).image).permute(2, 0, 1) / 255 for k in range(2)]


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_gives_the_same_detections(kind: str) -> None:
    network = detector(kind)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    copied = fast_copy(network, PATHS)
    assert _norms(network) == 3
    assert _norms(copied) == 1  # the one without a convolution before it
    with torch.inference_mode():
        expected, found = network(_images()), copied(_images())
    for one, other in zip(expected, found, strict=True):
        assert len(one["scores"]) > 5
        torch.testing.assert_close(other["scores"], one["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other["boxes"], one["boxes"], rtol=1e-4, atol=1e-3)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in copied.parameters())


@pytest.mark.parametrize("path", ["backbone.near", "backbone.near.0"])
def test_a_tap_reads_what_it_read_before(path: str) -> None:
    network = detector("retinanet")
    network.backbone.near[1].running_mean += 3
    copied = fast_copy(network, {"tap": path})
    assert _norms(copied) == (1 if path == "backbone.near" else 3)
    run_in_bfloat16(copied, ["backbone", "head"])
    read = []
    for one in (network, copied):
        with torch.inference_mode(), Taps(one, {"tap": path}) as taps:
            one(_images())
        read.append(taps.features["tap"].float())
    scale = float(read[0].abs().max())
    torch.testing.assert_close(read[1], read[0], rtol=0, atol=0.02 * scale)


class _Parts(nn.Module):
    """Outputs of every kind, and the dtype that its layer computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> dict[str, object]:
        y = self.layer(x)
        self.seen = y.dtype
        return OrderedDict(one=y, two=[y, (y, y)])


def test_parts_run_in_bfloat16_and_give_float32() -> None:
    network = nn.ModuleDict({"first": _Parts(), "second": _Parts()})
    run_in_bfloat16(network, ["first", "third"])
    x = torch.rand(2, 3)
    found = network["first"](x)
    assert type(found) is OrderedDict
    assert isinstance(found["two"], list)
    assert isinstance(found["two"][1], tuple)
    for value in (found["one"], found["two"][0], *found["two"][1]):
        assert value.dtype == torch.float32
    network["second"](x)
    assert (network["first"].seen, network["second"].seen) == (torch.bfloat16, torch.float32)
    with pytest.raises(RuntimeError):
        network["first"](torch.rand(2, 4))
    assert not torch.is_autocast_enabled("cpu")

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zmask_export.errors import ShapeError, UsageError
from zmask_export.models import registry
from zmask_export.models.bare import BareNetwork, tap_paths
from zmask_export.models.registry import normalise
from zmask_export.models.taps import Taps, resolve
from zmask_export.spec import PREPROCESS


class _Network(nn.Module):
    """Two convolutions in a row, a head that gives no map, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.deep_conv = nn.Conv2d(4, 5, 3, stride=2)
        self.head = nn.Linear(5, 2)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.deep_conv(self.stem(x)).mean((2, 3)))


@pytest.fixture
def network() -> _Network:
    torch.manual_seed(0)
    return _Network().eval()


def _hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


X = torch.rand(2, 3, 9, 11)


def test_taps_record_what_the_layers_give(network: _Network) -> None:
    with Taps(network, {"S": "stem.1", "D": "deep_conv"}) as taps:
        network(X)
    assert torch.equal(taps.features["S"], network.stem(X))
    assert torch.equal(taps.features["D"], network.deep_conv(network.stem(X)))


def test_hooks_are_gone_afterwards(network: _Network) -> None:
    taps = Taps(network, {"D": "deep_conv"})
    assert _hooks(network) == 0
    with taps:
        assert _hooks(network) == 1
    assert _hooks(network) == 0
    with pytest.raises(ZeroDivisionError), taps:
        raise ZeroDivisionError
    assert _hooks(network) == 0


def test_the_last_pass_is_kept_and_a_new_opening_starts_empty(network: _Network) -> None:
    with Taps(network, {"S": "stem"}) as taps:
        network(X)
        network(X * 0)
    assert torch.equal(taps.features["S"], network.stem(X * 0))
    with taps:
        assert taps.features == {}


def test_a_tap_that_gives_no_map_is_refused(network: _Network) -> None:
    with pytest.raises(ShapeError, match=r"'H' gives \(2, 2\), not a map"), Taps(
        network, {"H": "head"}
    ):  # fmt: skip
        network(X)
    assert _hooks(network) == 0


@pytest.mark.parametrize("path", ["deep_con", "stem.2", "convolution", ""])
def test_an_unknown_layer_is_refused(network: _Network, path: str) -> None:
    with pytest.raises(UsageError, match="no layer called"):
        resolve(network, {"T": path})


def test_near_names_of_an_unknown_layer_are_listed() -> None:
    network = registry.get("icnet").build()
    with pytest.raises(UsageError, match="'res_blok5'") as caught:
        Taps(network, {"T": "res_blok5"})
    assert "res_block5" in caught.value.fix


def test_a_bare_network_normalises_and_reads_its_taps(network: _Network) -> None:
    preprocess = PREPROCESS["imagenet"]
    bare = BareNetwork(network.train(), preprocess, {"S": "stem", "D": "deep_conv"})
    assert not network.training
    outputs, features = bare(X)
    z = (X - torch.tensor(preprocess.mean)[:, None, None]) / torch.tensor(preprocess.std)[
        :, None, None
    ]
    torch.testing.assert_close(outputs["logits"], network(z))
    torch.testing.assert_close(features["S"], network.stem(z))
    assert list(features) == ["S", "D"]
    assert torch.equal(bare.predict(X)["logits"], outputs["logits"])
    assert _hooks(network) == 0


def test_a_layer_that_does_not_run_is_refused(network: _Network) -> None:
    with pytest.raises(UsageError, match="'U' does not run"):
        BareNetwork(network, PREPROCESS["unit"], {"U": "unused"})(X)


def test_table_1_names_come_before_module_paths() -> None:
    entry = registry.get("icnet")
    paths = tap_paths(entry, ("res_block5", "res_block4.layers.0"))
    assert paths == {"res_block5": "res_block5", "res_block4.layers.0": "res_block4.layers.0"}
    with pytest.raises(UsageError, match="empty name") as caught:
        tap_paths(entry, ("res_block5", ""))
    assert "conv5_4_k1" in caught.value.fix


@pytest.mark.parametrize("name", registry.names())
def test_an_entry_names_layers_that_exist(name: str) -> None:
    entry = registry.get(name)
    network = entry.build()
    assert {*entry.shallow, *entry.deep} <= entry.taps.keys()
    assert len(resolve(network, entry.taps)) == len(entry.taps)
    head = network.state_dict()[entry.classes_from]
    assert len(head) == entry.classes * entry.classes_each
    assert entry.build(7).state_dict()[entry.classes_from].shape[0] == 7 * entry.classes_each


def test_an_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no network called 'resnet'") as caught:
        registry.get("resnet")
    assert "icnet" in caught.value.fix


def test_icnet_has_the_sets_of_table_1() -> None:
    entry = registry.get("icnet")
    assert set(entry.shallow) == {"res_block5", "convbnrelu1_2", "res_block2"}
    assert set(entry.deep) == {"res_block5", "conv5_4_k1", "convbnrelu1_2"}


def test_caffe_normalisation_swaps_to_bgr() -> None:
    image = torch.zeros(1, 3, 1, 1)
    image[0, 0] = 1  # pure red
    blue, green, red = normalise(image, PREPROCESS["caffe"])[0, :, 0, 0].tolist()
    assert red == pytest.approx(255 - 123.68, abs=1e-3)
    assert green == pytest.approx(-116.779, abs=1e-3)
    assert blue == pytest.approx(-103.939, abs=1e-3)
    mean = torch.tensor(PREPROCESS["caffe"].rgb_mean)[None, :, None, None]
    torch.testing.assert_close(
        normalise(mean, PREPROCESS["caffe"]), torch.zeros(1, 3, 1, 1), atol=1e-4, rtol=0
    )

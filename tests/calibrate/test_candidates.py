from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.small import PATHS, PREPROCESS, SIZE, TinySegmenter, tiny_bare
from zmask_export.calibrate.candidates import find_candidates
from zmask_export.errors import UsageError
from zmask_export.models import registry
from zmask_export.models.bare import BareNetwork


def _conv(a: int, b: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True))


class _Pair(nn.Module):
    """Gives two maps at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _conv(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(x), x


class _Zoo(nn.Module):
    """A stage of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = nn.Conv2d(3, 4, 3, 2, 1)
        self.stage = nn.Sequential(_conv(4, 4), _conv(4, 4))
        self.twice = _conv(4, 4)
        self.pair = _Pair()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1))
        self.unused = _conv(4, 4)
        self.head = nn.Sequential(nn.Conv2d(4, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage(self.alone(x))
        x, skip = self.pair(self.twice(self.twice(x)))
        return self.head(x * self.squeeze(x) + skip)


def _bare(network: nn.Module) -> BareNetwork:
    return BareNetwork(network, PREPROCESS, {})


def test_the_stages_of_a_network_are_found_in_order() -> None:
    assert find_candidates(tiny_bare(), SIZE) == {
        "stem": (8, 24, 32),
        "mid": (32, 12, 16),
        "tip": (16, 6, 8),
        "head": (5, 6, 8),
    }


def test_a_stage_runs_once_and_gives_one_map_that_is_not_the_output() -> None:
    assert list(find_candidates(_bare(_Zoo()), SIZE)) == [
        "alone", "stage.0", "stage", "pair.inner",
    ]  # fmt: skip


def test_of_nested_stages_with_one_output_the_outermost_counts() -> None:
    network = nn.Sequential(nn.Sequential(_conv(3, 4), nn.Sequential(_conv(4, 4))), _conv(4, 5))
    assert list(find_candidates(_bare(network), SIZE)) == ["0.0", "0"]
    assert list(find_candidates(_bare(network), SIZE, keep=("0.1.0",))) == ["0.0", "0.1.0"]


def test_a_kept_convolution_inside_a_stage_stays() -> None:
    found = find_candidates(tiny_bare(), SIZE, keep=("stem.0",))
    assert list(found) == ["stem.0", "stem", "mid", "tip", "head"]
    # What mid.0 gives is changed in place into what mid gives.
    assert list(find_candidates(tiny_bare(), SIZE, keep=("mid.0",)))[1:3] == ["mid.0", "tip"]


def test_a_kept_map_may_be_small() -> None:
    assert "squeeze" not in find_candidates(_bare(_Zoo()), SIZE)
    assert "squeeze" in find_candidates(_bare(_Zoo()), SIZE, keep=("squeeze",))


def test_the_network_is_left_as_it_was() -> None:
    network = TinySegmenter()
    find_candidates(_bare(network), SIZE)
    assert not any(module._forward_hooks for module in network.modules())
    broken = nn.Sequential(nn.Conv2d(4, 4, 1))
    with pytest.raises(RuntimeError):
        find_candidates(_bare(broken), SIZE)
    assert not any(module._forward_hooks for module in broken.modules())


class _Deep(nn.Module):
    """Six stages at 1/1, two at 1/2, two at 1/4 of the input."""

    def __init__(self) -> None:
        super().__init__()
        strides = (1, 1, 1, 1, 1, 1, 2, 1, 2, 1)
        self.stages = nn.ModuleList(_conv(3, 3, stride) for stride in strides)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x + 0


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (3, [5, 7, 9]),
        (4, [0, 5, 7, 9]),
        (6, [0, 5, 6, 7, 8, 9]),
        (8, [0, 2, 3, 5, 6, 7, 8, 9]),
        (99, list(range(10))),
    ],
)
def test_a_cap_gives_every_resolution_the_same_and_keeps_its_deepest(
    most: int, expected: list[int]
) -> None:
    found = find_candidates(_bare(_Deep()), SIZE, most=most)
    assert list(found) == [f"stages.{index}" for index in expected]


def test_kept_layers_take_places_of_the_cap() -> None:
    found = find_candidates(_bare(_Deep()), SIZE, keep=("stages.1", "stages.2"), most=4)
    assert list(found) == ["stages.1", "stages.2", "stages.5", "stages.7"]


def test_a_network_without_maps_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 4))
    with pytest.raises(UsageError, match="No layer"):
        find_candidates(_bare(network), SIZE)


@pytest.mark.parametrize("name", registry.names("segmentation"))
def test_every_registered_network_keeps_its_own_taps(name: str) -> None:
    entry = registry.get(name)
    torch.manual_seed(0)
    bare = BareNetwork(entry.build(), entry.preprocess, {})
    size = (max(96, entry.min_side), max(128, entry.min_side))
    own = {entry.taps[tap] for tap in (*entry.shallow, *entry.deep)}
    found = find_candidates(bare, size, keep=tuple(own))
    assert own <= set(found)
    assert len(found) == 16
    assert len({shape[1:] for shape in found.values()}) >= 4


def test_the_paths_of_the_tiny_network_are_candidates() -> None:
    assert set(PATHS.values()) <= set(find_candidates(tiny_bare(), SIZE))

"""RoIAlign in plain operators against torchvision's operator."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from zmask_export.models.detection.roi_align import PlainRoIAlign

IMAGE = (96, 128)
SIZES = {"0": (24, 32), "1": (12, 16), "2": (6, 8)}


def _maps(names: tuple[str, ...]) -> OrderedDict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return OrderedDict(
        (name, torch.randn(2, 5, *SIZES[name], generator=generator)) for name in names
    )


def _both(
    boxes: Tensor, names: tuple[str, ...] = ("0", "1", "2"), ratio: int = 2, output: int = 3
) -> tuple[Tensor, Tensor]:
    maps = _maps(names)
    pool = MultiScaleRoIAlign(list(names), output, ratio, canonical_scale=60, canonical_level=4)
    expected = pool(maps, list(boxes), [IMAGE] * 2)
    plain = PlainRoIAlign(pool, [SIZES[name] for name in names])
    return plain(list(maps.values()), boxes), expected


_AT = st.floats(-40, 170, width=32)
_SIDE = st.one_of(st.just(0.0), st.floats(0, 150, width=32))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(_AT, _AT, _SIDE, _SIDE), min_size=4, max_size=4),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([("0",), ("1", "2"), ("0", "1", "2")]),
)
def test_it_equals_torchvision(
    rows: list[tuple[float, float, float, float]], ratio: int, names: tuple[str, ...]
) -> None:
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows]).reshape(2, 2, 4)
    found, expected = _both(boxes, names, ratio)
    # A sample that stands within rounding of one cell outside may count or not.
    close = (found - expected).abs() <= 2e-4
    assert close.float().mean() > 0.95
    torch.testing.assert_close(found[close], expected[close], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    "box",
    [
        (0.0, 0.0, 128.0, 96.0),
        (10.3, 20.7, 50.1, 60.9),
        (127.9, 95.9, 128.0, 96.0),
        (5.0, 5.0, 5.0, 5.0),
        (-30.0, -30.0, 20.0, 20.0),
        (200.0, 200.0, 260.0, 260.0),
    ],
    ids=["whole", "within", "corner", "no-area", "half-outside", "outside"],
)
def test_it_equals_torchvision_at(box: tuple[float, float, float, float]) -> None:
    found, expected = _both(torch.tensor(box).expand(2, 1, 4).contiguous(), output=7)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_constant_map_gives_its_constant() -> None:
    maps = OrderedDict((name, torch.full((1, 2, *size), 7.0)) for name, size in SIZES.items())
    pool = MultiScaleRoIAlign(list(SIZES), 4, 2)
    boxes = torch.tensor([[[3.0, 4.0, 90.0, 70.0], [1.0, 1.0, 9.0, 9.0]]])
    pool(maps, list(boxes), [IMAGE])
    values = PlainRoIAlign(pool, list(SIZES.values()))(list(maps.values()), boxes)
    torch.testing.assert_close(values, torch.full((2, 2, 4, 4), 7.0))

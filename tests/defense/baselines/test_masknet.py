from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from zmask_export.defense.baselines.masknet import MaskNet, load_masknet, save_masknet
from zmask_export.errors import OutputError, WeightsError


def _masknet(seed: int = 0) -> MaskNet:
    """A MaskNet whose masks differ from place to place."""
    torch.manual_seed(seed)
    masknet = MaskNet()
    torch.nn.init.normal_(masknet.head.weight, std=2.0)
    for module in masknet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch is what the norms go by
    with torch.no_grad():
        masknet(torch.rand(4, 3, 48, 64))
    return masknet.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "masknet.safetensors"
    save_masknet(path, _masknet(), {"model": "icnet"})
    return path


@pytest.mark.parametrize("size", [(1, 1), (1, 33), (2, 3), (31, 17), (32, 64), (45, 70)])
def test_any_size_of_image_gets_a_mask_of_its_size(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    masknet = _masknet()
    with torch.inference_mode():
        mask = masknet(image)
        assert mask.shape == (2, 1, *size)
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert torch.equal(masknet.protect(image), image * mask)


def test_an_untrained_masknet_keeps_nearly_everything() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        mask = MaskNet().eval()(torch.rand(1, 3, 40, 56))
    torch.testing.assert_close(mask, torch.full_like(mask, 0.95), atol=0.03, rtol=0)


def test_it_has_as_many_parameters_as_it_says() -> None:
    assert sum(p.numel() for p in MaskNet().parameters()) == pytest.approx(1.2e6, rel=0.05)


def test_every_level_takes_part() -> None:
    masknet = _masknet()
    masknet.mask(torch.rand(1, 3, 64, 64)).std().backward()
    idle = [n for n, p in masknet.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert idle == []


def test_a_pixel_reaches_as_far_as_a_large_patch() -> None:
    masknet = _masknet()
    image = torch.rand(1, 3, 128, 256, requires_grad=True)
    masknet.mask(image)[0, 0, 64, 128].backward()
    assert image.grad is not None
    rows, columns = image.grad.abs().sum((0, 1)).nonzero().T
    assert rows.max() - rows.min() >= 104
    assert columns.max() - columns.min() >= 139


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999))
def test_images_of_a_batch_do_not_meet(seed: int) -> None:
    masknet = _masknet()
    images = torch.rand(3, 3, 24, 37, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        alone = masknet(images[1:2])
        images[0], images[2] = 1e3, float("nan")
        torch.testing.assert_close(masknet(images)[1:2], alone, rtol=1e-4, atol=1e-5)


def test_weights_come_back_at_half_precision(saved: Path) -> None:
    first = _masknet().state_dict()
    again = load_masknet(saved)
    assert not again.training
    assert {value.dtype for value in load_file(saved).values()} == {torch.float16}
    for name, value in again.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert value.dtype == torch.float32
            assert torch.equal(value, first[name].half().float()), name
    with safe_open(saved, framework="pt") as file:
        assert file.metadata() == {"model": "icnet"}


def test_equal_weights_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    save_masknet(tmp_path / "again", _masknet(), {"model": "icnet"})
    assert saved.read_bytes() == (tmp_path / "again").read_bytes()


def _changed(path: Path, changes: dict[str, Tensor | None]) -> None:
    state: dict[str, Tensor | None] = {**load_file(path), **changes}
    save_file({name: value for name, value in state.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head.bias": None}, "missing"),
        ({"foreign": torch.zeros(1)}, "foreign"),
        ({"head.bias": torch.zeros(2)}, "head.bias"),
        ({"head.bias": torch.tensor([float("nan")])}, "finite"),
        ({"head.bias": torch.tensor([1])}, "finite"),
    ],
)
def test_other_weights_are_refused(
    saved: Path, changes: dict[str, Tensor | None], words: str
) -> None:
    _changed(saved, changes)
    with pytest.raises(WeightsError, match=words):
        load_masknet(saved)


def test_a_damaged_file_is_refused(saved: Path, tmp_path: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cut short"):
        load_masknet(saved)
    with pytest.raises(WeightsError, match="do not exist"):
        load_masknet(tmp_path / "nowhere.safetensors")


def test_a_place_that_takes_no_file_is_refused(saved: Path) -> None:
    with pytest.raises(OutputError):
        save_masknet(saved / "masknet.safetensors", MaskNet())

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.models.tiny import TINY, tiny
from zmask_export.errors import WeightsError
from zmask_export.models import registry, weights

State = dict[str, Any]
ICNET = registry.get("icnet")


@pytest.fixture
def state() -> State:
    return dict(weights.random_network(TINY, seed=3).state_dict())


@pytest.fixture(scope="module")
def published() -> tuple[State, str]:
    """ICNet weights of 19 classes and their fingerprint."""
    torch.manual_seed(5)
    network = ICNET.build(19)
    return dict(network.state_dict()), weights.fingerprint(network)


def _plain(state: State) -> State:
    return state


def _parallel(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def _wrapped(state: State) -> State:
    return {"epoch": 7, "model_state": _parallel(state), "best_iou": 0.5}


def _with_unused_keys(state: State) -> State:
    extra = {
        f"pyramid_pooling.path_module_list.{i}.cbr_unit.0.weight": torch.ones(2) for i in (0, 3)
    }
    return {**state, **extra}  # fmt: skip


@pytest.mark.parametrize("form", [_plain, _parallel, _wrapped, _with_unused_keys])
def test_published_forms_of_a_checkpoint_load(
    tmp_path: Path, published: tuple[State, str], form: Callable[[State], State]
) -> None:
    state, fingerprint = published
    path = tmp_path / "icnet.pt"
    torch.save(form(state), path)
    network, classes = weights.load_network(ICNET, path)
    assert classes == 19
    assert weights.fingerprint(network) == fingerprint
    assert not network.training


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_other_wrappers_load(tmp_path: Path, state: State, wrapper: str) -> None:
    path = tmp_path / "tiny.pt"
    torch.save({wrapper: {f"model.{k}": v for k, v in state.items()}}, path)
    network, _ = weights.load_network(TINY, path)
    assert weights.fingerprint(network) == _fingerprint(state)


def _fingerprint(state: State) -> str:
    network = tiny(len(state["head.weight"]))
    network.load_state_dict(state)
    return weights.fingerprint(network)


def test_the_kind_of_file_does_not_change_the_fingerprint(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save(state, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    prints = {
        weights.fingerprint(weights.load_network(TINY, path)[0]) for path in tmp_path.iterdir()
    }
    assert prints == {_fingerprint(state)}


@pytest.mark.parametrize("key", ["body.weight", "norm.running_var", "head.bias"])
def test_one_changed_value_changes_the_fingerprint(state: State, key: str) -> None:
    before = _fingerprint(state)
    changed = {k: v.clone() for k, v in state.items()}
    changed[key].view(-1)[-1] += 1e-6
    assert _fingerprint(changed) != before


def test_names_and_shapes_are_part_of_the_fingerprint() -> None:
    def of(name: str, module: nn.Module) -> str:
        nn.init.ones_(next(module.parameters()))
        return weights.fingerprint(nn.Sequential(OrderedDict([(name, module)])))

    wide, tall = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)
    assert len({of("a", wide), of("b", wide), of("a", tall)}) == 3


def test_half_precision_weights_become_float32(tmp_path: Path, state: State) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    network, _ = weights.load_network(TINY, tmp_path / "half.safetensors")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert torch.equal(network.state_dict()["body.weight"], half["body.weight"].float())


@pytest.mark.parametrize("classes", [2, 19])
def test_the_number_of_classes_is_read_from_the_checkpoint(tmp_path: Path, classes: int) -> None:
    torch.save(tiny(classes).state_dict(), tmp_path / "tiny.pt")
    network, found = weights.load_network(TINY, tmp_path / "tiny.pt")
    assert found == classes
    assert network(torch.zeros(1, 3, 5, 5)).shape[1] == classes


def _refused(tmp_path: Path, state: Any) -> WeightsError:
    torch.save(state, tmp_path / "tiny.pt")
    with pytest.raises(WeightsError) as caught:
        weights.load_network(TINY, tmp_path / "tiny.pt")
    assert caught.value.fix
    return caught.value


def test_everything_that_does_not_match_is_listed(tmp_path: Path, state: State) -> None:
    del state["norm.running_mean"]
    state["stranger.weight"] = torch.zeros(1)
    state["body.bias"] = torch.zeros(5)
    message = _refused(tmp_path, state).what
    assert "1 missing (norm.running_mean)" in message
    assert "1 not part of the network (stranger.weight)" in message
    assert "1 wrong shape (body.bias is (5,), not (4,))" in message


def test_a_long_list_is_cut(tmp_path: Path, state: State) -> None:
    strangers = {f"stranger{i}": torch.zeros(1) for i in range(20)}
    assert "20 not part of the network" in _refused(tmp_path, state | strangers).what
    assert "and 12 more" in _refused(tmp_path, state | strangers).what


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(
    "head", [torch.zeros(()), torch.zeros(0, 4, 1, 1), torch.zeros(7), torch.zeros(2, 4, 1, 2)]
)
def test_a_head_of_another_shape_is_refused(tmp_path: Path, state: State, head: Tensor) -> None:
    assert "head" in _refused(tmp_path, state | {"head.weight": head}).what


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, state: State, value: float) -> None:
    state["norm.running_var"][2] = value
    assert "not finite, in norm.running_var" in _refused(tmp_path, state).what


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(
    "bias",
    [
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(4, dtype=torch.complex64),
        torch.zeros(4).to_sparse(),
    ],
    ids=["int", "complex", "sparse"],
)
def test_tensors_of_another_kind_are_refused(tmp_path: Path, state: State, bias: Tensor) -> None:
    assert "body.bias as torch." in _refused(tmp_path, state | {"body.bias": bias}).what


@pytest.mark.parametrize("content", [[], {}, {"epoch": 3}, torch.zeros(3), "words", 5, None])
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    assert "holds no" in _refused(tmp_path, content).what


def test_weights_of_another_network_are_refused(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "tiny.safetensors")
    with pytest.raises(WeightsError, match="do not fit icnet") as caught:
        weights.load_network(ICNET, tmp_path / "tiny.safetensors")
    assert "--model" in caught.value.fix


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "."])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="do not exist"):
        weights.read_state(tmp_path / name)


def test_random_weights_are_those_of_their_seed() -> None:
    before = torch.get_rng_state()
    prints = [weights.fingerprint(weights.random_network(TINY, seed)) for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.get_rng_state(), before)

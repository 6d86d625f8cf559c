"""Loading checkpoints, strictly, without ever running code from them."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zmask_export.errors import WeightsError
from zmask_export.models.registry import ModelEntry

_WRAPPERS = ("model_state", "state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "model.")


def load_network(entry: ModelEntry, path: Path) -> tuple[nn.Module, int]:
    """Build a network and load a checkpoint into it.

    The number of classes is read from the checkpoint.

    Args:
        entry: which network.
        path: a .safetensors file, or a PyTorch checkpoint (state dict, with or without a
            ``module.`` prefix or a ``model_state`` wrapper).

    Returns:
        The network in eval mode, float32, and its number of classes.

    Raises:
        WeightsError: missing, truncated, foreign, holding code, not finite, or not matching; all
            keys and shapes that do not match are listed.
    """
    state = read_state(path, entry.unused)
    head = state.get(entry.classes_from)
    classes = entry.classes if head is None or head.ndim == 0 else _classes(entry, path, head)
    network = entry.build(classes)
    expected = {
        k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    _require_match(entry, path, state, expected)
    for key, value in state.items():
        if not value.is_floating_point() or value.layout is not torch.strided:
            raise WeightsError(
                f"The weights {path} hold {key} as {value.dtype}, {value.layout}.",
                fix="Save dense floating-point weights.",
            )
        if not torch.isfinite(value.float()).all():
            raise WeightsError(
                f"The weights {path} hold a value that is not finite, in {key}.",
                fix="Use a checkpoint from before the training diverged.",
            )
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    return network.eval(), classes


def _classes(entry: ModelEntry, path: Path, head: Tensor) -> int:
    count, rest = divmod(int(head.shape[0]), entry.classes_each)
    if rest or not count:
        raise WeightsError(
            f"The weights {path} hold {head.shape[0]} rows in {entry.classes_from}; {entry.name} has "
            f"{entry.classes_each} for every class.",
            fix=f"Give a checkpoint of {entry.name} with its own anchors.",
        )
    return count


def random_network(entry: ModelEntry, seed: int = 0) -> nn.Module:
    """The network with seeded random weights and batch norms that keep activations alive."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return entry.build().eval()


def read_state(path: Path, unused: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors of a checkpoint, wrapper and prefix removed.

    Args:
        path: see :func:`load_network`.
        unused: prefixes of keys to leave out, with or without the prefix of the others.

    Raises:
        WeightsError: see :func:`load_network`.
    """
    if not path.is_file():
        raise WeightsError(
            f"The weights {path} do not exist.", fix="Give the path of a checkpoint with --weights."
        )
    loaded: object
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as exc:
        raise _unreadable(path, "is cut short or no safetensors file") from exc
    except pickle.UnpicklingError as exc:
        raise WeightsError(
            f"The weights {path} hold more than tensors, or are no checkpoint; nothing in them was run.",
            fix="Save the state dict alone: torch.save(network.state_dict(), path).",
        ) from exc
    except Exception as exc:  # a damaged file makes torch.load fail in every way there is
        raise _unreadable(path, "is cut short or no PyTorch checkpoint") from exc
    return _unwrap(path, loaded, unused)


def _unreadable(path: Path, what: str) -> WeightsError:
    return WeightsError(f"The weights file {path} {what}.", fix="Copy or download it again.")


def _unwrap(path: Path, loaded: object, unused: tuple[str, ...]) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise _unreadable(path, "holds no state dict")
    state = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if not state:
        raise _unreadable(path, "holds no tensor")
    for prefix in _PREFIXES:
        if all(key.startswith((prefix, *unused)) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {
        key: value
        for key, value in state.items()
        if not key.startswith(unused) and not key.endswith("num_batches_tracked")
    }


def _require_match(
    entry: ModelEntry, path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    missing = sorted(expected.keys() - state.keys())
    foreign = sorted(state.keys() - expected.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if state[key].shape != expected[key].shape
    ]
    parts = [
        _listing("missing", missing),
        _listing("not part of the network", foreign),
        _listing("wrong shape", shapes),
    ]
    problems = [part for part in parts if part]
    if problems:
        raise WeightsError(
            f"The weights {path} do not fit {entry.name}: {'; '.join(problems)}.",
            fix=f"Give a checkpoint of {entry.name}, or choose the network it belongs to with --model.",
        )


def _listing(label: str, items: list[str], most: int = 8) -> str:
    if not items:
        return ""
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return f"{len(items)} {label} ({', '.join(items[:most])}{more})"


def fingerprint(network: nn.Module) -> str:
    """sha256 over names, shapes and float32 bytes of all tensors, whatever file they came from."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if key.endswith("num_batches_tracked"):
            continue
        array = value.detach().cpu().float().contiguous().numpy()
        digest.update(f"{key}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

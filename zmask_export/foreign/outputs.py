"""Outputs of networks of one's own: which tensors are kept, and what they are called.

The user writes ``NAME`` or ``NAME=SOURCE``. A source is a key of the dictionary or an index of the tuple
that a module returns, or the name of an ONNX output. Names without a source are given in order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zmask_export.errors import NetworkError, UsageError
from zmask_export.spec import DETECTION_OUTPUTS

LOGITS = "logits"
MOST_CLASSES = 256
"""Predictions are uint8."""
DTYPES = (torch.float32, torch.int32, torch.int64)
_RESERVED = {
    "image", "threshold", "mask", "score", "flag", "soft_mask", *DETECTION_OUTPUTS,
}  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]*")


def flatten(result: object, label: str) -> dict[str, Tensor]:
    """What a network returned, by source.

    Args:
        result: a tensor, or a tuple, list or dictionary of tensors; None in it is left out.
        label: what messages call the network.

    Raises:
        NetworkError: something else.
    """
    if isinstance(result, Tensor):
        return {"0": result}
    parts: Mapping[str, object] = {}
    if isinstance(result, Mapping):
        parts = {str(key): value for key, value in result.items()}
    elif isinstance(result, (tuple, list)):
        parts = {str(index): value for index, value in enumerate(result)}
    kept = {key: value for key, value in parts.items() if value is not None}
    tensors = {key: value for key, value in kept.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) != len(kept):
        wrong = next((v for v in kept.values() if not isinstance(v, Tensor)), result)
        raise NetworkError(
            f"{label} returns a {type(wrong).__name__} where a tensor is wanted.",
            fix="Return a tensor, or a flat tuple or dictionary of tensors.",
        )
    return tensors


def name_outputs(values: Mapping[str, Tensor], wanted: Sequence[str], label: str) -> dict[str, str]:
    """Name to source of the outputs to keep.

    A single map of 2 to 256 channels is ``logits`` where the user says nothing.

    Args:
        values: what the network gave on a batch, by source.
        wanted: what the user wrote.
        label: what messages call the network.

    Raises:
        UsageError: a source that does not exist, a name twice, or one that the engine uses itself.
    """
    sources = list(values)
    if not wanted:
        if len(sources) == 1 and is_class_map(values[sources[0]]):
            named = {LOGITS: sources[0]}
        else:
            named = {f"output_{s}" if s.isdecimal() else s: s for s in sources}
        return _checked(named, sources, label)
    pairs = [text.partition("=") for text in wanted]
    names = [name for name, _, _ in pairs]
    in_order = not any(sign for _, sign, _ in pairs) and not set(names) <= set(sources)
    if in_order and len(names) != len(sources):
        raise UsageError(
            f"{label} has {len(sources)} outputs, and {len(names)} names were given.",
            fix=f"Name all, or pick some with NAME=SOURCE; sources: {', '.join(sources)}.",
        )
    if in_order:
        named = dict(zip(names, sources, strict=True))
    else:
        named = {name: source if sign else name for name, sign, source in pairs}
    if len(named) != len(names):
        raise UsageError("Two outputs have one name.", fix="Give each its own in --outputs.")
    return _checked(named, sources, label)


def is_class_map(value: Tensor) -> bool:
    """Whether a tensor can be class scores (N, C, H', W') of every pixel."""
    return value.ndim == 4 and value.dtype == torch.float32 and 2 <= value.shape[1] <= MOST_CLASSES


def check_outputs(values: Mapping[str, Tensor], named: Mapping[str, str], batch: int) -> None:
    """Refuse what an engine cannot hand on.

    Args:
        values: by source, on ``batch`` images.
        named: name to source.
        batch: how many images they are of.

    Raises:
        NetworkError: a dtype that engines do not give, a first dimension that is no batch, or logits
            that are no scores of classes.
    """
    for name, source in named.items():
        value = values[source]
        if value.dtype not in DTYPES:
            raise NetworkError(
                f"The output {name} is {value.dtype}.",
                fix="Give float32, int32 or int64, or leave the output out with --outputs.",
            )
        if not value.ndim or value.shape[0] != batch:
            raise NetworkError(
                f"The output {name} has shape {tuple(value.shape)} for {batch} images: its first "
                "dimension is not the batch.",
                fix="Give every image a result of its own, or leave the output out with --outputs.",
            )
        if name == LOGITS and not is_class_map(value):
            raise NetworkError(
                f"The output logits is {value.dtype} {tuple(value.shape)}, no scores of 2 to "
                f"{MOST_CLASSES} classes (N, C, H, W).",
                fix="Give the output another name with --outputs: it is then kept as it is.",
            )


def _checked(named: dict[str, str], sources: list[str], label: str) -> dict[str, str]:
    for name, source in named.items():
        if source not in sources:
            raise UsageError(
                f"{label} has no output {source!r}.", fix=f"Choose among {', '.join(sources)}."
            )
        if name in _RESERVED or "heatmap" in name or name.startswith("tap."):
            raise UsageError(
                f"An output cannot be called {name!r}: the engine has an output or input of that name.",
                fix=f"Rename it: --outputs my_{name}={source}.",
            )
        if not _PLAIN.fullmatch(name):
            raise UsageError(
                f"An output cannot be called {name!r}.",
                fix=f"Give it a plain name: --outputs NAME={source}.",
            )
    return named

"""The progress of a run on disk: what it belongs to, and everything to go on to the same last bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from zmask_export.artifacts.files import write_bytes
from zmask_export.data.coco import BoxSample
from zmask_export.data.segmentation import Sample

_KEY = "zmask-export-craft"
_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        epoch: finished epochs.
        loss, evasion: mean losses of the last one; evasion is None where there is none.
    """

    epoch: int = 0
    loss: float = 0.0
    evasion: float | None = None


def samples_sha256(samples: Sequence[Sample | BoxSample]) -> str:
    """sha256 of all pixels and labels, and of all boxes, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(str(sample.image.shape).encode())
        digest.update(sample.image.tobytes())
        digest.update(sample.labels.tobytes())
        if isinstance(sample, BoxSample):
            digest.update(str(sample.boxes.shape).encode())
            digest.update(sample.boxes.tobytes())
            digest.update(sample.crowd.tobytes())
    return digest.hexdigest()


def save(
    path: Path, identity: str, progress: Progress, patch: Tensor, optimizer: torch.optim.Adam
) -> None:
    """Write patch, Adam's state and progress.

    Raises:
        OutputError: it cannot be written.
    """
    state = optimizer.state[patch]
    tensors = {"patch": patch.detach(), **{key: state[key] for key in _STATE}}
    record = json.dumps({"identity": identity, **vars(progress)})
    write_bytes(path, save_tensors(tensors, metadata={_KEY: record}))


def resume(
    path: Path | None, identity: str, patch: Tensor, optimizer: torch.optim.Adam
) -> Progress:
    """Bring patch and Adam to where a run of this identity stopped.

    Returns:
        Its progress; nothing done, and nothing changed, where there is none to go on from.
    """
    if path is None or not path.exists():
        return Progress()
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if record["identity"] != identity:
            return Progress()
        evasion = record["evasion"]
        progress = Progress(
            int(record["epoch"]),
            float(record["loss"]),
            None if evasion is None else float(evasion),
        )
        state = {key: tensors[key] for key in _STATE}
        with torch.no_grad():
            patch.copy_(tensors["patch"])
        optimizer.state[patch] = state
        return progress
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError):
        # A checkpoint that cannot be read only costs the time it would have saved.
        return Progress()

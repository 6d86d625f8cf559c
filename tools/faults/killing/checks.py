"""What a killed verb left: whether everything visible is whole, and how far hidden progress has come."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

import zmask_export
from zmask_export.artifacts import calibration
from zmask_export.artifacts.manifest import FILE_NAME
from zmask_export.attack import patch
from zmask_export.errors import ZMaskError

Files = Mapping[str, bytes]
"""Path below a folder to content."""

_PARTIAL = re.compile(r"\.(?P<name>.+?)\.(?P<pid>\d+)(?P<old>\.old)?\.partial")
_PROGRESS = re.compile(r"\..+\.progress")
_COUNTS = {"zmask-export-progress": "position", "zmask-export-craft": "epoch"}
"""Keys of the metadata of progress, and what counts the work that is done."""


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Left:
    """What is in a folder after a kill.

    Attributes:
        visible: files under their own names.
        moved: names of what was moved away to make room.
        writers: processes in the middle of a write.
        progress: hidden progress to the work that it holds.
        faults: what must not be there.
    """

    visible: Files
    moved: frozenset[str]
    writers: frozenset[int]
    progress: Mapping[str, int]
    faults: tuple[str, ...] = field(default=())


def look(folder: Path, before: Files, after: Files) -> Left:
    """Hold a folder against what a verb found and what it shall leave.

    Args:
        folder: where a verb was killed, perhaps again and again.
        before: its files before the first start.
        after: its files after an undisturbed run.
    """
    visible, moved, writers, progress, faults = {}, set(), set(), {}, []
    for name, data in files_of(folder).items():
        hidden = next((part for part in PurePosixPath(name).parts if part.startswith(".")), None)
        partial = _PARTIAL.fullmatch(hidden or "")
        if hidden is None:
            visible[name] = data
        elif partial:
            writers.add(int(partial["pid"]))
            if partial["old"]:
                moved.add(partial["name"])
        elif _PROGRESS.fullmatch(hidden):
            try:
                progress[name] = _done(folder / name)
            except (SafetensorError, OSError, ValueError, KeyError) as exc:
                faults.append(f"the progress {name} cannot be read ({exc})")
        else:
            faults.append(f"{name} was left")
    faults += _broken(folder, visible, before, after)
    return Left(visible, frozenset(moved), frozenset(writers), progress, tuple(faults))


def _done(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)
    return next(int(json.loads(metadata[key])[_COUNTS[key]]) for key in _COUNTS if key in metadata)


def _broken(folder: Path, visible: Files, before: Files, after: Files) -> list[str]:
    """Visible files that are neither as they were nor as they shall be, or that do not load."""
    faults = [
        f"{name} is neither what was there nor the result"
        for name, data in visible.items()
        if data not in (before.get(name), after.get(name))
    ]
    for bundle in _bundles(before) | _bundles(after):
        there = _below(visible, bundle)
        if there not in ({}, _below(before, bundle), _below(after, bundle)):
            faults.append(f"the bundle {bundle} holds {sorted(there)}")
        if there:
            faults += _fails(folder / bundle, _load_bundle)
    for name in visible:
        read = _READERS.get(Path(name).suffix)
        if "/" not in name and read is not None:
            faults += _fails(folder / name, read)
    return faults


def _bundles(files: Files) -> set[str]:
    return {str(PurePosixPath(name).parent) for name in files if name.endswith(f"/{FILE_NAME}")}


def _below(files: Files, folder: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith(f"{folder}/")}


def _fails(path: Path, read: Callable[[Path], object]) -> list[str]:
    try:
        read(path)
    except (ZMaskError, OSError, ValueError) as exc:
        return [f"{path.name} does not load: {exc}"]
    return []


def _load_bundle(path: Path) -> None:
    with zmask_export.load(path, backend="onnxruntime", threads=1):
        pass


def _load_patch(path: Path) -> None:
    patch.load(path)
    patch.info(path)


_READERS: Mapping[str, Callable[[Path], object]] = {
    ".safetensors": calibration.load,
    ".png": _load_patch,
}

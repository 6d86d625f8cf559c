"""Memory of a session, in a process of its own: what another one left cannot hide its growth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from zmask_export.errors import BackendError
from zmask_export.profiling.sessions import open_session
from zmask_export.spec import Size, Spec

_STATUS = Path("/proc/self/statm")
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from zmask_export.profiling import memory; memory.main(sys.argv[2])"
)
_RUNS = 2


class Growth(Spec):
    """Bytes by which the process's resident memory grew.

    Attributes:
        loaded: once the session was open: weights, and kernels laid out.
        ran: once it had run: the same and the activations, which ONNX Runtime keeps.
    """

    loaded: int
    ran: int


def resident() -> int | None:
    """Resident bytes of this process; None where the system does not say."""
    try:
        return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def growth(
    model: Path, size: Size, *, batch: int, threads: int, threshold: float | None
) -> Growth | None:
    """How much memory a graph takes on the CPU; None where the system does not say.

    Args:
        model: the graph's file.
        size: (H, W) of the images.
        batch: images a run.
        threads: of the session.
        threshold: lambda0, where the graph has it as an input.

    Raises:
        BackendError: the process ended without an answer.
    """
    if resident() is None:
        return None
    request = {
        "model": str(model.resolve()),
        "shape": [batch, 3, *size],
        "threads": threads,
        "threshold": threshold,
    }
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _START, json.dumps(_paths()), json.dumps(request)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise BackendError(
            f"The session whose memory was measured ended with code {done.returncode}"
            f" ({said[0][:200] if said else 'it gives no reason'}).",
            fix="Give a smaller --batch, or more memory.",
        )
    return Growth.model_validate_json(done.stdout)


def _paths() -> list[str]:
    return [os.path.abspath(path) for path in sys.path]


def main(text: str) -> None:
    """Open, run, and write a :class:`Growth` to standard output."""
    request: dict[str, Any] = json.loads(text)
    image = np.full(request["shape"], 0.5, np.float32)
    before = resident() or 0
    # A path, not bytes: those would count too.
    session = open_session(request["model"], request["threads"])
    loaded = resident() or 0
    inputs = {"image": image}
    if request["threshold"] is not None:
        inputs["threshold"] = np.asarray([request["threshold"]], np.float32)
    for _ in range(_RUNS):
        session.run(None, inputs)
    ran = resident() or 0
    sys.stdout.write(Growth(loaded=loaded - before, ran=ran - before).model_dump_json())

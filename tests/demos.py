"""The shipped demos, built as a reader builds them, within limits of time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import command

MOST_S = 90
MOST_BYTES = 4e9


def build_demo(model: str, out: Path) -> None:
    """``zmask-export build --model MODEL``; a failed assertion where it fails or takes too much."""
    log = out.with_name(f"{out.name}.log")
    started = time.monotonic()
    with log.open("w") as said:
        build = subprocess.Popen(
            command("build", "--model", model, "--out", out), stdout=said, stderr=said
        )
        _, status, usage = os.wait4(build.pid, 0)
    took = time.monotonic() - started
    build.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert build.returncode == 0, log.read_text()
    assert took < MOST_S
    assert peak < MOST_BYTES

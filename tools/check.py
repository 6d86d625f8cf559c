"""Everything that must hold before a change lands: format, lint, types, tests.

    python tools/check.py

Runs every step, prints how long each took, and exits with 1 if one failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from zmask_export.cli import heap

# One process a core; tests of one file share what they built, and the longest files come first.
CORES = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")
# For tests that compute in their own process what the program does in one that it set up.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(heap.MMAP_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": str(heap.TRIM_THRESHOLD),
}
STEPS = {
    "format": ("ruff", "format", "--check", "."),
    "lint": ("ruff", "check", "."),
    "types": ("mypy",),
    "tests": ("pytest", *CORES, "-m", "not slow"),
    "slow tests": ("pytest", *CORES, "-m", "slow"),
}


def main() -> int:
    """Run all steps; 0 if all passed."""
    with tempfile.TemporaryDirectory() as bundles:
        return _run(bundles)


def _run(bundles: str) -> int:
    failed = []
    for name, command in STEPS.items():
        started = time.monotonic()
        # What one step's tests built the other's take.
        shared = (f"--bundles={bundles}",) if command[0] == "pytest" else ()
        run = [sys.executable, "-m", *command, *shared]
        code = subprocess.run(run, check=False, env=MALLOC | os.environ).returncode
        outcome = "ok" if code == 0 else f"failed ({code})"
        print(f"== {name}: {outcome}, {time.monotonic() - started:.0f} s", flush=True)
        if code:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

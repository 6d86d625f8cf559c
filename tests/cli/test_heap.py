"""The heap of verbs that compute: freed blocks are used again, and a user's own settings stand."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's heap")

BLOCKS = """
import resource
from zmask_export.cli import heap
print(heap.keep_freed())
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(64 << 20)
before = faults()
for _ in range(8):
    bytearray(b"x") * (64 << 20)
print(faults() - before)
"""
PAGES = 8 * (64 << 20) // os.sysconf("SC_PAGE_SIZE")


def _run(**settings: str) -> tuple[bool, int]:
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS],
        capture_output=True, text=True, check=True, env=plain | settings,
    )  # fmt: skip
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


def test_a_freed_block_is_used_again_without_a_fault_a_page() -> None:
    kept, faults = _run()
    assert kept
    assert faults < PAGES / 4


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_a_heap_that_the_user_set_is_left_alone(name: str) -> None:
    value = "glibc.malloc.arena_max=2" if name == "GLIBC_TUNABLES" else "2"
    assert not _run(**{name: value})[0]

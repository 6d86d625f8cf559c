from __future__ import annotations

import os
import subprocess
import sys

import onnxruntime as ort
import torch
from measuring.machine import describe

from zmask_export.backends.runner import cores


def test_a_machine_is_described_with_its_commit() -> None:
    found = describe(threads=3)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert found.commit
        assert head.stdout.startswith(found.commit)
        assert found.dirty is not None
    else:
        assert (found.commit, found.dirty) == (None, None)
    assert (found.threads, found.cores) == (3, cores())
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 2**28
    assert found.cpu
    versions = found.versions
    assert (versions.torch, versions.onnxruntime) == (torch.__version__, ort.__version__)
    assert sys.version.startswith(versions.python)

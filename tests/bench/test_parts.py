from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from overhead.parts import profile

from tests.small import random_calibration, tiny_bare, tiny_defense
from zmask_export.export.bare import export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.profiling.parts import RUNTIME
from zmask_export.spec import Policy

SIZE = (480, 640)


@pytest.fixture(scope="module")
def gated() -> bytes:
    bare = tiny_bare()
    calibration = random_calibration(bare, tiny_defense(), size=SIZE)
    return fuse(export_bare(bare, SIZE), calibration, FuseOptions(Policy.GATED)).to_bytes()


@pytest.mark.parametrize("frame", ["clean", "attacked"])
def test_the_parts_of_a_profile_make_up_the_total(gated: bytes, frame: Any) -> None:
    images = np.random.default_rng(0).random((4, 3, *SIZE), np.float32)
    found = profile(gated, images, case="gated", frame=frame, threads=1, rounds=5)
    named = {part: ms for part, ms in found.parts_ms.items() if part != RUNTIME}
    assert sum(named.values()) == pytest.approx(found.total_ms, rel=0.1)
    for tap in ("stem", "mid", "tip"):
        assert named[f"zscore/{tap}"] > 0
        assert named[f"cascade/{tap}"] > 0
    assert named["network"] > 0
    assert named["fusion"] > 0
    assert (found.share("second_pass") > 0.1 * named["network"]) == (frame == "attacked")
    assert found.batch == 4

"""Shards that are measured apart give what one pass gives; what no cluster is needed for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Inputs, assert_refused, contents, zmask
from tests.small import SIZE, tiny_bare
from zmask_export.calibrate.statistics import Step, measure, shard_size, steps
from zmask_export.data.images import ImageFolder


@pytest.mark.parametrize("bad", [(), (0, 1, 5, 8, 9, 10, 11, 12, 13, 14, 15, 18)])
def test_shards_give_the_batches_of_one_pass(tmp_path: Path, bad: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (19, *SIZE, 3), np.uint8)
    for index, pixels in enumerate(noise):
        path = tmp_path / f"{index:02}.png"
        Image.fromarray(pixels).save(path)
        if index in bad:
            path.write_bytes(b"no image")
    folder, bare, batch = ImageFolder(tmp_path, SIZE, on_bad="skip"), tiny_bare(), 2
    size = shard_size(batch)
    apart: list[Step] = []
    for start in range(0, len(folder), size):
        part = folder.part(start, start + size)
        apart += steps(bare, part, batch=batch, offset=start)
    notes: list[str] = []
    whole = measure(bare, folder, batch=batch, on_skip=lambda error: notes.append(error.what))
    joined = measure(bare, folder, batch=batch, walk=lambda start: iter(apart))
    assert (joined.position, joined.images) == (19, 19 - len(bad))
    assert joined.digest == whole.digest
    assert len(notes) == len(bad)
    for tap, moments in whole.moments.items():
        np.testing.assert_array_equal(joined.moments[tap].mean, moments.mean)
        np.testing.assert_array_equal(joined.moments[tap].m2, moments.m2)


@pytest.mark.parametrize("verb", ["calibrate", "evaluate"])
def test_without_ray_the_way_to_get_it_is_named(
    verb: str, inputs: Inputs, bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    given = {
        "calibrate": (*inputs.random, "--images", inputs.images, "--out", out),
        "evaluate": (bundle, "--data", inputs.camvid, "--patch", inputs.patch),
    }
    assert_refused(zmask(verb, *given[verb], "--ray"), 6, "Ray", "pip install 'zmask-export[ray]'")
    assert contents(out.parent) == []


def test_ray_is_refused_where_it_does_nothing(inputs: Inputs, out: Path) -> None:
    select = (*inputs.random, "--images", inputs.images, "--out", out, "--select-taps", "--ray")
    assert_refused(zmask("calibrate", *select), 2, "--ray", "--select-taps")
    study = ("--study", inputs.preset, "--data", inputs.camvid, "--out", out, "--ray")
    assert_refused(zmask("evaluate", *study), 2, "--ray", "--study")

"""The demo as it is shipped: built, run on street scenes, and measured on CamVid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Make, zmask
from tests.demos import build_demo
from zmask_export import presets
from zmask_export.data.scene import draw_scene

DEMOS = ("icnet", "ddrnet", "bisenet")
CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"
SIZE = (360, 480)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=DEMOS)
def demo(request: pytest.FixtureRequest, make_once: Make) -> Path:
    model = str(request.param)
    return make_once(f"demos/{model}", lambda out: build_demo(model, out))


def test_the_demo_finds_its_patch_and_leaves_a_clean_street_alone(
    demo: Path, tmp_path: Path
) -> None:
    with Image.open(presets.folder() / demo.name / "patch.png") as picture:
        patch = np.asarray(picture)
    clean = draw_scene(SIZE, 0)
    top, left = 120, 200
    inside = np.zeros(SIZE, bool)
    inside[top : top + patch.shape[0], left : left + patch.shape[1]] = True
    patched = clean.copy()
    patched[inside] = patch.reshape(-1, 3)
    for name, image in (("clean", clean), ("patched", patched)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    given = (tmp_path / "clean.png", tmp_path / "patched.png", "--out", tmp_path / "results")
    outcome = zmask("run", demo, *given)
    assert outcome.code == 0, outcome.err
    first, second = (json.loads(line) for line in outcome.out.splitlines())
    assert (first["flag"], first["covered"]) == (False, 0)
    assert second["flag"]
    with Image.open(second["files"]["mask"]) as picture:
        covered = np.asarray(picture) == 0
    assert (covered & inside).sum() > 0.5 * inside.sum()
    assert (covered & inside).sum() > 0.5 * covered.sum()


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not beside this checkout")
def test_the_demo_on_camvid(demo: Path) -> None:
    given = (
        "--data",
        CAMVID,
        "--patch",
        presets.folder() / demo.name / "patch.png",
        "--limit",
        "12",
        "--json",
    )
    outcome = zmask("evaluate", demo, *given)
    assert outcome.code == 0, outcome.err
    assert outcome.record["images"] == 12
    assert outcome.record["auc"] >= 0.995
    assert outcome.record["clean"] - outcome.record["clean_defended"] <= 0.01

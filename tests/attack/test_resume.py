"""An interrupted run goes on to the same patch; what it cannot go on from, it ignores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.attack.conftest import interrupt
from zmask_export.artifacts.calibration import Calibration
from zmask_export.attack.craft import Crafted, craft
from zmask_export.attack.settings import CraftSettings
from zmask_export.attack.transforms import Appearance
from zmask_export.data.segmentation import Sample
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import PREPROCESS

SETTINGS = CraftSettings(size=(14, 16), epochs=6, batch=2)
PALETTE = torch.tensor([[0.1, 0.2, 0.3], [0.8, 0.7, 0.2]])
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "paper": {"combine": "paper", "balanced": True},
    "beta": {"beta": 0.4},
    "mask": {"aware": "mask", "alpha": 0.3},
    "flag": {"aware": "flag", "alpha": 0.3, "aware_images": 1},
    "printable": {"printability": 0.5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_goes_on_to_the_same_patch(
    tmp_path: Path,
    bare: BareNetwork,
    samples: list[Sample],
    calibration: Calibration,
    kind: str,
) -> None:
    settings = replace(SETTINGS, **KINDS[kind])
    palette = PALETTE if settings.printability else None
    told: list[int] = []

    def run(**how: Any) -> Crafted:
        return craft(bare, samples, settings, calibration=calibration, palette=palette, **how)

    whole = run()
    for at in (1, 4):
        path = tmp_path / f"{at}"
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint=path, on_epoch=interrupt(at))
        again = run(checkpoint=path, on_epoch=lambda n, _: told.append(n))
        assert torch.equal(again.patch, whole.patch)
        assert (again.loss, again.evasion) == (whole.loss, whole.evasion)
    assert told == [2, 3, 4, 5, 6, 5, 6]


def test_a_finished_checkpoint_gives_its_patch_at_once(
    tmp_path: Path, bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    path, settings = tmp_path / "progress", replace(SETTINGS, beta=0.5)
    whole = craft(bare, samples, settings, calibration=calibration, checkpoint=path)
    again = craft(
        bare, samples, settings, calibration=calibration, checkpoint=path, on_epoch=interrupt(1)
    )
    assert torch.equal(again.patch, whole.patch)
    assert (again.loss, again.evasion) == (whole.loss, whole.evasion)


@pytest.fixture
def checkpoint(tmp_path: Path, bare: BareNetwork, samples: list[Sample]) -> Path:
    """Progress after two epochs."""
    path = tmp_path / "progress"
    with pytest.raises(KeyboardInterrupt):
        craft(bare, samples, SETTINGS, checkpoint=path, on_epoch=interrupt(2))
    return path


def _first_epoch(path: Path, bare: BareNetwork, samples: list[Sample], **how: Any) -> int:
    """The epoch that a run starts with."""
    told: list[int] = []
    settings = how.pop("settings", SETTINGS)
    craft(bare, samples, settings, checkpoint=path, on_epoch=lambda n, _: told.append(n), **how)
    return told[0]


def test_a_checkpoint_of_another_run_is_ignored(
    checkpoint: Path, bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    data = checkpoint.read_bytes()
    assert _first_epoch(checkpoint, bare, samples) == 3
    image = samples[0].image.copy()
    image[0, 0, 0] ^= 1
    labels = samples[0].labels.copy()
    labels[3, 3] ^= 1
    dark = replace(SETTINGS, appearance=Appearance(noise=0.0))
    others: list[tuple[BareNetwork, list[Sample], dict[str, Any]]] = [
        (bare, samples, {"settings": replace(SETTINGS, seed=3)}),
        (bare, samples, {"settings": replace(SETTINGS, combine="paper")}),
        (bare, samples, {"settings": dark}),
        (bare, samples, {"settings": replace(SETTINGS, size=(10, 10))}),
        (bare, samples, {"calibration": calibration}),
        (bare, samples[:4], {}),
        (bare, [replace(samples[0], image=image), *samples[1:]], {}),
        (bare, [replace(samples[0], labels=labels), *samples[1:]], {}),
        (BareNetwork(bare.network, PREPROCESS["unit"], bare.paths), samples, {}),
    ]
    for other, given, how in others:
        checkpoint.write_bytes(data)
        assert _first_epoch(checkpoint, other, given, **how) == 1
    with torch.no_grad():
        bare.network.head.bias[0] += 0.1
    checkpoint.write_bytes(data)
    assert _first_epoch(checkpoint, bare, samples) == 1


def test_a_checkpoint_of_another_calibration_or_palette_is_ignored(
    tmp_path: Path, bare: BareNetwork, samples: list[Sample], calibration: Calibration
) -> None:
    settings = replace(SETTINGS, epochs=3, beta=0.5, printability=0.1)
    other = calibration.with_header(threshold=0.2)
    for kept, palette, first in (
        (calibration, PALETTE, 2),
        (other, PALETTE, 1),
        (calibration, PALETTE / 2, 1),
    ):
        path = tmp_path / "progress"
        with pytest.raises(KeyboardInterrupt):
            craft(
                bare,
                samples,
                settings,
                calibration=calibration,
                palette=PALETTE,
                checkpoint=path,
                on_epoch=interrupt(1),
            )
        given = {"settings": settings, "calibration": kept, "palette": palette}
        assert _first_epoch(path, bare, samples, **given) == first
        path.unlink()


def _without(path: Path, name: str) -> None:
    tensors, data = load_file(path), path.read_bytes()
    del tensors[name]
    size = int.from_bytes(data[:8], "little")
    save_file(tensors, path, json.loads(data[8 : 8 + size])["__metadata__"])


@pytest.mark.parametrize("missing", ["patch", "exp_avg", "step", None])
def test_a_damaged_checkpoint_is_ignored(
    checkpoint: Path, bare: BareNetwork, samples: list[Sample], missing: str | None
) -> None:
    if missing is None:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    else:
        _without(checkpoint, missing)
    assert _first_epoch(checkpoint, bare, samples) == 1


def test_progress_from_another_start_is_ignored(
    tmp_path: Path, bare: BareNetwork, samples: list[Sample]
) -> None:
    path = tmp_path / "progress"
    with pytest.raises(KeyboardInterrupt):
        craft(bare, samples, SETTINGS, checkpoint=path, on_epoch=interrupt(3))
    start = torch.full((3, *SETTINGS.size), 0.5)
    assert torch.equal(
        craft(bare, samples, SETTINGS, start=start, checkpoint=path).patch,
        craft(bare, samples, SETTINGS, start=start).patch,
    )

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from torch import Tensor, nn

from tests.conftest import Inputs
from tools.train_masknet import Settings, Trainer, main, train
from zmask_export.attack.transforms import Appearance
from zmask_export.data.segmentation import IGNORE, Sample
from zmask_export.defense.baselines.masknet import load_masknet
from zmask_export.presets import folder
from zmask_export.spec import PREPROCESS

SIZE = (32, 48)
STILL = Appearance(scale=(1.0, 1.0), brightness=0.0, contrast=0.0, noise=0.0)
SETTINGS = Settings(epochs=3, batch=4, lr=3e-3, appearance=STILL)


def _network() -> nn.Module:
    """Tells dark from bright by 17 x 17 pixels: a bright patch changes what it says around itself."""
    conv = nn.Conv2d(3, 2, 17, padding=8)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[1] = 20 / (3 * 17**2)
        conv.bias.copy_(torch.tensor([0.0, -6.0]))  # type: ignore[union-attr]
    return nn.Sequential(conv)


def _samples(count: int) -> list[Sample]:
    """Dark frames of class 0."""
    rng = np.random.default_rng(0)
    labels = np.zeros(SIZE, np.uint8)
    pictures = rng.integers(0, 90, (count, *SIZE, 3), np.uint8)
    return [Sample(Path(f"{i}.png"), picture, labels) for i, picture in enumerate(pictures)]


def _trainer(settings: Settings = SETTINGS) -> Trainer:
    patches = [torch.full((3, 12, 16), 0.9), torch.full((3, 9, 9), 1.0)]
    return Trainer(_network(), PREPROCESS["unit"], patches, settings)


def _batch(count: int) -> tuple[Tensor, Tensor]:
    pictures = np.stack([sample.image for sample in _samples(count)])
    image = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    return image, torch.zeros(count, *SIZE, dtype=torch.int64)


def _state(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.masknet.state_dict().items()}


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_training_lowers_the_loss_under_patches(tmp_path: Path) -> None:
    trainer = _trainer(Settings(epochs=12, batch=4, lr=3e-2, appearance=STILL))
    losses = [loss for _, loss in train(trainer, _samples(8), tmp_path / "progress", "")]
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.4 * losses[0]


def test_patches_lie_where_labels_are_ignored() -> None:
    trainer, (image, labels) = _trainer(), _batch(3)
    patch = torch.ones(3, 12, 16)
    attacked, maps = trainer.attacked(image, labels, [None, patch, None], np.random.default_rng(0))
    assert torch.equal(attacked[0], image[0])
    assert torch.equal(attacked[2], image[2])
    below = maps == IGNORE
    assert below.sum((1, 2)).tolist() == [0, 12 * 16, 0]
    assert torch.equal(
        attacked[1].permute(1, 2, 0)[~below[1]], image[1].permute(1, 2, 0)[~below[1]]
    )
    assert attacked[1].permute(1, 2, 0)[below[1]].eq(1).all()


def test_the_loss_is_the_cross_entropy_of_labelled_pixels() -> None:
    trainer, (image, labels) = _trainer(), _batch(2)
    labels[0, :20] = IGNORE
    labels[1, 3, 4] = 1
    trainer.masknet.eval()
    with torch.inference_mode():
        found = trainer.loss(image, labels).item()
        logits = _network()(trainer.masknet.protect(image)).double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    terms = [
        -np.log(shares[n, labels[n, i, j], i, j])
        for n, i, j in itertools.product(range(2), range(SIZE[0]), range(SIZE[1]))
        if labels[n, i, j] != IGNORE
    ]
    assert found == pytest.approx(np.mean(terms), rel=0.05)  # bfloat16
    assert trainer.loss(image, torch.full_like(labels, IGNORE)).item() == 0


def test_the_live_patch_climbs_the_loss_and_leaves_the_weights_alone() -> None:
    trainer, (image, labels) = _trainer(), _batch(3)
    live = torch.full((3, 12, 16), 0.2)
    before = _state(trainer)

    def loss(patch: Tensor) -> float:
        trainer.masknet.eval()
        pair = trainer.attacked(image, labels, [patch] * 3, np.random.default_rng(9))
        return trainer.loss(*pair).item()

    first = loss(live)
    rng = np.random.default_rng(1)
    for _ in range(10):
        moved = trainer.ascend(live, image, labels, rng)
        assert (moved - live).abs().max() <= SETTINGS.ascent_step + 1e-6
        live = moved
    assert loss(live) > first
    assert live.min() >= 0
    assert live.max() <= 1
    assert _equal(before, _state(trainer))
    assert all(p.grad is None for p in trainer.masknet.parameters())
    assert trainer.ascend(live, image[:0], labels[:0], rng) is live


def test_of_four_images_one_is_clean_two_carry_given_patches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, (image, labels) = _trainer(), _batch(8)
    seen: list[Tensor | None] = []
    attacked = trainer.attacked

    def spy(
        image: Tensor, labels: Tensor, carried: Sequence[Tensor | None], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        seen.extend(carried)
        return attacked(image, labels, carried, rng)

    monkeypatch.setattr(trainer, "attacked", spy)
    live = torch.zeros(3, 5, 5)
    before = _state(trainer)
    trainer.descend(live, image, labels, np.random.default_rng(0))
    kinds = ["clean" if p is None else "live" if p is live else "given" for p in seen]
    assert kinds == ["clean", "given", "given", "live"] * 2
    assert {id(p) for p in seen[1:3] + seen[5:7]} <= {id(p) for p in trainer.given}
    assert not _equal(before, _state(trainer))


def test_live_patches_start_from_noise_and_from_each_given_patch() -> None:
    trainer, rng = _trainer(), np.random.default_rng(0)
    starts = [trainer.fresh_patch(index, rng) for index in range(4)]
    assert [tuple(p.shape[1:]) for p in starts] == [(12, 16), (12, 16), (9, 9), (9, 9)]
    assert starts[1] is trainer.given[0]
    assert starts[3] is trainer.given[1]
    assert starts[0].std() > 0.2


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    samples = _samples(5)
    whole = _trainer()
    assert [n for n, _ in train(whole, samples, tmp_path / "whole", "")] == [1, 2, 3]
    checkpoint = tmp_path / "progress"
    next(train(_trainer(), samples, checkpoint, ""))
    rest = _trainer()
    assert [n for n, _ in train(rest, samples, checkpoint, "")] == [2, 3]
    assert _equal(_state(whole), _state(rest))


def test_progress_of_something_else_is_ignored(tmp_path: Path) -> None:
    checkpoint = tmp_path / "progress"
    next(train(_trainer(), _samples(4), checkpoint, "this"))
    before = _state(_trainer())
    for identity, data in (("that", checkpoint.read_bytes()), ("this", b"PK" + bytes(90))):
        checkpoint.write_bytes(data)
        trainer = _trainer()
        assert trainer.resume(f"{identity} {SETTINGS}", checkpoint) == 0
        assert _equal(before, _state(trainer))


def test_the_command_writes_weights_and_says_how(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "masknet.safetensors"
    patch = folder() / "icnet" / "patch.png"
    options = ["--data", inputs.camvid, "--patch", patch, "--out", out, "--images", 2]
    done = CliRunner().invoke(main, [str(o) for o in [*options, "--epochs", 1, "--ascent", 1]])
    assert done.exit_code == 0, done.output
    assert "loss" in done.output
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    load_masknet(out)
    with safe_open(out, framework="pt") as file:
        record = file.metadata()
    assert (record["model"], record["images"], record["epochs"]) == ("icnet", "2", "1")
    assert len(record["patches_sha256"]) == 64


def test_the_command_refuses_in_two_sentences(tmp_path: Path) -> None:
    options = ["--data", tmp_path, "--patch", tmp_path, "--out", tmp_path / "out.safetensors"]
    done = CliRunner().invoke(main, [str(o) for o in options])
    assert done.exit_code == 1
    assert "Error: " in done.output
    assert "Fix: " in done.output

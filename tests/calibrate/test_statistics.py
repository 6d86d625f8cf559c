from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from tests.small import SIZE, tiny_bare
from zmask_export.calibrate import statistics
from zmask_export.calibrate.statistics import Progress, chained, measure
from zmask_export.data.drawn import DrawnScenes
from zmask_export.data.images import Frame
from zmask_export.errors import DatasetError, ImageError, WeightsError
from zmask_export.pipeline.calibrate import calibrate
from zmask_export.pipeline.network import NetworkOptions, OpenNetwork, open_network

BAD = ImageError("It is bad.", fix="Leave it out.")


class Source:
    """Seeded pictures; those in ``bad`` are left out; stops with Ctrl-C at ``stop``."""

    def __init__(
        self, count: int, *, bad: tuple[int, ...] = (), stop: int | None = None, version: str = "1"
    ) -> None:
        self.size = SIZE
        self.rule = "skip"
        self.version = version
        self.names = [f"image-{index}" for index in range(count)]
        self.bad = bad
        self.stop = stop
        self.starts: list[int] = []
        self.live: weakref.WeakSet[_Frame] = weakref.WeakSet()
        self.most = 0

    def frames(
        self, start: int = 0, *, on_skip: Callable[[ImageError], None] | None = None
    ) -> Iterator[Frame | None]:
        self.starts.append(start)
        for index in range(start, len(self.names)):
            if index == self.stop:
                raise KeyboardInterrupt
            if index in self.bad:
                if on_skip is not None:
                    on_skip(BAD)
                yield None
                continue
            yield self._frame(index)

    def _frame(self, index: int) -> Frame:
        rng = np.random.default_rng(index)
        frame = _Frame(self.names[index], rng.integers(0, 256, (*SIZE, 3), np.uint8), f"{index}")
        self.live.add(frame)
        self.most = max(self.most, len(self.live))
        return frame


class _Frame(Frame):
    """A frame that can be counted while it lives."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


@pytest.fixture(autouse=True)
def save_after_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAVE_EVERY_S", -1.0)


def _bytes(progress: Progress) -> bytes:
    return statistics._dump(progress, "")


def test_the_moments_are_those_of_all_activations() -> None:
    bare, source = tiny_bare(), Source(5)
    progress = measure(bare, source, batch=2)
    images = np.stack([frame.image for frame in Source(5).frames() if frame is not None])
    with torch.inference_mode():
        _, features = bare(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    assert progress.images == progress.position == 5
    assert progress.moments.keys() == features.keys()
    for tap, value in features.items():
        moments = progress.moments[tap]
        np.testing.assert_allclose(moments.mean, value.double().mean((0, 2, 3)), atol=1e-6)
        expected = value.double().std((0, 2, 3), unbiased=False)
        np.testing.assert_allclose(moments.std(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_pass_holds_one_batch_of_images(batch: int) -> None:
    source = Source(12, bad=(4,))
    measure(tiny_bare(), source, batch=batch)
    assert source.most <= batch + 1


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
@pytest.mark.parametrize("bad", [(), (0, 3, 4, 8)])
def test_an_interrupted_pass_goes_on_to_the_same_result(
    tmp_path: Path, stop: int, bad: tuple[int, ...]
) -> None:
    bare, checkpoint = tiny_bare(), tmp_path / "progress"
    with pytest.raises(KeyboardInterrupt):
        measure(bare, Source(9, bad=bad, stop=stop), batch=2, checkpoint=checkpoint)
    source, told = Source(9, bad=bad), []
    resumed = measure(bare, source, batch=2, checkpoint=checkpoint, on_image=told.append)
    whole = measure(bare, Source(9, bad=bad), batch=2)
    assert _bytes(resumed) == _bytes(whole)
    assert told[0] == source.starts[0] <= stop
    assert told[-1] == 9
    if stop > 4:
        assert source.starts[0] >= 2


def _resumes_at(checkpoint: Path, **changes: object) -> int:
    settings: dict = {"bare": tiny_bare(), "source": Source(6), "batch": 2, "identity": "a"}
    settings |= changes
    result = measure(checkpoint=checkpoint, **settings)
    whole = measure(
        settings["bare"], Source(len(settings["source"].names)), batch=settings["batch"]
    )
    assert _bytes(result) == _bytes(whole)
    return settings["source"].starts[0]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Progress after four of six images."""
    path = tmp_path / "progress"
    with pytest.raises(KeyboardInterrupt):
        measure(tiny_bare(), Source(6, stop=5), batch=2, checkpoint=path, identity="a")
    return path


def test_a_checkpoint_of_the_same_run_is_used(checkpoint: Path) -> None:
    assert _resumes_at(checkpoint) == 4


def test_what_ends_a_pass_costs_no_batch_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SAVE_EVERY_S", float("inf"))
    path = tmp_path / "progress"
    with pytest.raises(KeyboardInterrupt):
        measure(tiny_bare(), Source(6, stop=5), batch=2, checkpoint=path, identity="a")
    assert _resumes_at(path) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "other weights"},
        {"batch": 3},
        {"source": Source(7)},
        {"source": Source(6, version="2")},
    ],
    ids=["identity", "batch", "images", "other files of the same names"],
)
def test_a_checkpoint_of_another_run_is_ignored(
    checkpoint: Path, changes: dict[str, object]
) -> None:
    assert _resumes_at(checkpoint, **changes) == 0


def test_a_damaged_checkpoint_is_ignored(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    state = _state(data)
    broken = [data[: len(data) * part // 16] for part in range(16)]
    broken += [b"\xff" * 100, data[:-1], save_tensors(dict(load_tensors(data)))]
    broken += [_with_state(data, text) for text in ("[]", "5", "{", "[" * 50_000)]
    broken += [_with_state(data, json.dumps(state | {"counts": value})) for value in ([], {"x": 1})]
    for content in broken:
        checkpoint.write_bytes(content)
        assert statistics._resume(checkpoint, state["identity"]) == Progress()
    checkpoint.write_bytes(broken[7])
    assert _resumes_at(checkpoint) == 0


def _state(data: bytes) -> dict:
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"][statistics._KEY])


def _with_state(data: bytes, text: str) -> bytes:
    return save_tensors(dict(load_tensors(data)), metadata={statistics._KEY: text})


def test_bad_images_are_left_out_and_told() -> None:
    told: list[ImageError] = []
    progress = measure(tiny_bare(), Source(5, bad=(0, 2)), batch=2, on_skip=told.append)
    assert (progress.images, progress.position) == (3, 5)
    assert told == [BAD, BAD]


@pytest.mark.parametrize("source", [Source(3, bad=(0, 1, 2)), Source(0)])
def test_not_one_usable_image_is_an_error(source: Source) -> None:
    with pytest.raises(DatasetError, match="Not one of the images"):
        measure(tiny_bare(), source)


def test_the_digest_is_that_of_names_and_contents_in_order() -> None:
    frames = [frame for frame in Source(3).frames() if frame is not None]

    def digest(*items: Frame) -> str:
        return chained("", items)

    other = Frame(frames[0].name, frames[0].image, "another file")
    assert digest(*frames) == measure(tiny_bare(), Source(3), batch=2).digest
    digests = {
        digest(*frames),
        digest(*frames[::-1]),
        digest(other, *frames[1:]),
        digest(frames[0]),
    }
    assert len(digests) == 4


def test_weights_that_give_nan_are_refused() -> None:
    bare = tiny_bare()
    with torch.no_grad():
        next(bare.network.parameters())[0] = float("inf")
    with pytest.raises(WeightsError, match=r"tap stem .* not finite on image-0"):
        measure(bare, Source(2))


class _Stopped(DrawnScenes):
    """Ctrl-C at the fourth scene."""

    def frames(
        self, start: int = 0, *, on_skip: Callable[[ImageError], None] | None = None
    ) -> Iterator[Frame | None]:
        for index, frame in enumerate(super().frames(start, on_skip=on_skip), start):
            if index == 3:
                raise KeyboardInterrupt
            yield frame


@pytest.fixture(scope="module")
def opened() -> OpenNetwork:
    return open_network(NetworkOptions("icnet", random_weights=True, input_size=(64, 96)))


def test_calibrate_goes_on_to_the_same_file(tmp_path: Path, opened: OpenNetwork) -> None:
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    calibrate(opened, DrawnScenes((64, 96), 5), whole, batch=2)
    with pytest.raises(KeyboardInterrupt):
        calibrate(opened, _Stopped((64, 96), 5), resumed, batch=2)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".safetensors"] == [
        ".resumed.safetensors.progress"
    ]
    calibrate(opened, DrawnScenes((64, 96), 5), resumed, batch=2)
    assert resumed.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [resumed.name, whole.name]

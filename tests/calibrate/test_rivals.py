from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small import SIZE, as_float, tiny_bare
from zmask_export.calibrate import statistics
from zmask_export.calibrate.rivals import MeasuredRivals, measure_rivals
from zmask_export.data.images import Frame
from zmask_export.errors import ImageError, UsageError, WeightsError

TAP = "tip"


class Source:
    """Seeded pictures of noise; stops with Ctrl-C at ``stop``."""

    def __init__(self, count: int, stop: int | None = None) -> None:
        self.size = SIZE
        self.rule = self.version = "error"
        self.names = [f"image-{index}" for index in range(count)]
        self.stop = stop
        self.starts: list[int] = []

    def __len__(self) -> int:
        return len(self.names)

    def frames(
        self, start: int = 0, *, on_skip: Callable[[ImageError], None] | None = None
    ) -> Iterator[Frame]:
        self.starts.append(start)
        for index in range(start, len(self.names)):
            if index == self.stop:
                raise KeyboardInterrupt
            picture = np.random.default_rng(index).integers(0, 256, (*SIZE, 3), np.uint8)
            yield Frame(self.names[index], picture, str(index))


def _activations(count: int) -> torch.Tensor:
    frames = np.stack([frame.image for frame in Source(count).frames()])
    with torch.inference_mode():
        return tiny_bare()(torch.from_numpy(as_float(frames)))[1][TAP].double()


def _same(a: MeasuredRivals, b: MeasuredRivals) -> bool:
    """Whether two measurements agree to the last bit."""
    pairs = ((a.hyperneuron, b.hyperneuron), (a.fpda, b.fpda))
    equal = [
        torch.equal(x.get_buffer(kind), y.get_buffer(kind))
        for x, y in pairs
        for kind in ("mean", "std")
    ]
    return all(equal) and a[2:] == b[2:]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_statistics_are_those_of_every_position_over_the_images(batch: int) -> None:
    measured = measure_rivals(tiny_bare(), Source(5), TAP, batch=batch)
    h = _activations(5)
    for detector, values in ((measured.hyperneuron, h), (measured.fpda, h.mean(1))):
        assert detector.mean.dtype == detector.std.dtype == torch.float32
        torch.testing.assert_close(detector.mean.double(), values.mean(0), rtol=1e-5, atol=1e-6)
        deviation = values.std(0, correction=0)
        torch.testing.assert_close(detector.std.double(), deviation, rtol=1e-4, atol=1e-7)
    assert measured.images == 5
    assert len(measured.dataset_sha256) == 64


def test_measured_images_deviate_by_at_most_one_in_the_mean() -> None:
    # The mean of |z| is at most the root of the mean of z^2, which is 1 over the measured images.
    measured = measure_rivals(tiny_bare(), Source(6), TAP)
    h = _activations(6).float()
    for score in (measured.hyperneuron(h), measured.fpda(h)):
        assert 0.5 < score.mean() <= 1


def test_one_image_never_varied() -> None:
    measured = measure_rivals(tiny_bare(), Source(1), TAP)
    assert measured.hyperneuron.std.abs().max() == 0
    assert measured.hyperneuron(_activations(3).float()).abs().max() == 0


def test_only_the_sign_that_fpda_counts_is_chosen() -> None:
    plain = measure_rivals(tiny_bare(), Source(3), TAP)
    over = measure_rivals(tiny_bare(), Source(3), TAP, positive=True)
    assert _same(plain, over)
    assert (plain.fpda.positive, over.fpda.positive) == (False, True)


def test_an_interrupted_pass_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SAVE_EVERY_S", -1.0)
    checkpoint = tmp_path / "progress"
    whole = measure_rivals(tiny_bare(), Source(7), TAP, batch=2)
    with pytest.raises(KeyboardInterrupt):
        measure_rivals(tiny_bare(), Source(7, stop=5), TAP, batch=2, checkpoint=checkpoint)
    rest = Source(7)
    assert _same(whole, measure_rivals(tiny_bare(), rest, TAP, batch=2, checkpoint=checkpoint))
    assert rest.starts == [4]
    done = Source(7)
    assert _same(whole, measure_rivals(tiny_bare(), done, TAP, batch=2, checkpoint=checkpoint))
    assert done.starts == [7]


def test_progress_at_another_layer_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SAVE_EVERY_S", -1.0)
    checkpoint = tmp_path / "progress"
    measure_rivals(tiny_bare(), Source(3), "mid", checkpoint=checkpoint)
    source = Source(3)
    measured = measure_rivals(tiny_bare(), source, TAP, checkpoint=checkpoint)
    assert source.starts == [0]
    assert _same(measured, measure_rivals(tiny_bare(), Source(3), TAP))


def test_a_tap_that_the_network_does_not_read_is_refused() -> None:
    with pytest.raises(UsageError, match="'nose'"):
        measure_rivals(tiny_bare(), Source(1), "nose")


def test_activations_that_are_not_finite_are_refused() -> None:
    bare = tiny_bare()
    bare.network.get_parameter("tip.bias").data[3] = float("nan")
    with pytest.raises(WeightsError, match="tip gives values that are not finite"):
        measure_rivals(bare, Source(2), TAP)

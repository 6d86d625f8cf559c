"""The statistics of the endurance command, on cases whose answer is known."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from enduring import rate, resources, windows
from enduring.resources import Resources
from enduring.stream import Views, view
from enduring.times import Times
from enduring.windows import SLICES, WINDOWS, trend

from tests.drawn import save_scene
from zmask_export.errors import DatasetError


def test_a_trend_is_that_of_the_line() -> None:
    found = trend([5, 6, 7, 8])
    assert (found.gained, found.lower, found.upper) == pytest.approx((4, 4, 4))
    assert found.scaled(0.5).gained == pytest.approx(2)
    level = trend([5, 5, 50, 5, 5, 5])  # one window in which another process ran
    assert level.gained == 0


@pytest.mark.parametrize(
    ("gained", "lower", "upper", "verdict"),
    [
        (0.02, -0.01, 0.05, "flat"),
        (0.3, 0.2, 0.4, "grows"),
        (0.08, 0.05, 0.12, "unclear"),
        (0.3, -0.1, 0.7, "unclear"),
        (-0.5, -0.6, -0.4, "flat"),
    ],
)
def test_a_verdict_asks_for_size_and_certainty(
    gained: float, lower: float, upper: float, verdict: str
) -> None:
    found = windows.Trend(gained=gained, lower=lower, upper=upper)
    assert found.verdict(0.1) == verdict


def test_parts_of_a_run_tile_it() -> None:
    for count in (10, 12):
        ends = windows.bounds(count)
        assert len(ends) == count
        assert [i for start, stop in ends for i in range(start, stop)] == list(range(SLICES))


def _times(growth: float, frames: int = 100) -> tuple[Times, np.ndarray]:
    """Latencies of about 20 ms, that grow over the run by a share."""
    rng = np.random.default_rng(0)
    drawn = 0.02 * rng.lognormal(0, 0.1, (SLICES, frames))
    drawn *= 1 + growth * np.linspace(0, 1, SLICES)[:, None]
    found = Times()
    for index, row in enumerate(drawn):
        for seconds in row:
            found.add(index, float(seconds))
    return found, 1e3 * drawn


def test_quantiles_are_right_to_half_a_percent() -> None:
    found, drawn = _times(0)
    latency = found.latency(0.1)
    assert latency is not None
    assert latency.first_tenth is not None
    assert latency.last_tenth is not None
    assert latency.largest == drawn.max()
    for part, true in (
        (latency.whole, drawn),
        (latency.first_tenth, drawn[:6]),
        (latency.last_tenth, drawn[-6:]),
    ):
        expected = np.quantile(true, [0.5, 0.99, 0.999], method="inverted_cdf")
        assert part.frames == true.size
        assert (part.p50, part.p99, part.p999) == pytest.approx(expected, rel=0.005)
    assert latency.p99_last_over_first == latency.last_tenth.p99 / latency.first_tenth.p99
    assert latency.verdict == "flat"


def test_a_growing_latency_is_seen() -> None:
    latency = _times(0.5)[0].latency(0.1)
    assert latency is not None
    assert latency.growth is not None
    assert latency.growth.gained == pytest.approx(0.5 / 1.25, abs=0.1)  # of the run's middle
    assert latency.verdict == "grows"


def test_a_short_run_is_not_judged() -> None:
    latency = _times(0.5, frames=10)[0].latency(0.1)
    assert latency is not None
    assert latency.verdict == "not judged"
    assert Times().latency(0.1) is None


def _resources(leak: float, handles: int = 0) -> Resources:
    """A process of about 300 MB that leaks megabytes over the run, and descriptors."""
    rng = np.random.default_rng(0)
    found = Resources()
    for look in range(1200):
        done = look / 1200
        noise = rng.normal(0, 1)
        open_files = 20 + int(done * handles) + int(rng.integers(3))
        found.note(int(done * SLICES), 300 + done * leak + noise, (open_files, 4))
    return found


def test_a_leak_is_seen() -> None:
    found = _resources(leak=12, handles=12)
    memory = found.memory(minutes=10, limit=2)
    assert memory.slope_mb_per_minute is not None
    slope = memory.slope_mb_per_minute
    assert slope.lower < 1.2 < slope.upper
    assert memory.last_half_mb == pytest.approx(12 * 5 / 12, abs=0.5)
    assert memory.verdict == "grows"
    assert found.descriptors().verdict == "grows"
    assert found.threads() == resources.Handles(first=4, last=4, most=4, verdict="flat")


def test_noise_is_no_leak() -> None:
    found = _resources(leak=0)
    assert found.memory(minutes=10, limit=2).verdict == "flat"
    assert found.descriptors().verdict == "flat"


def test_recording_does_not_grow() -> None:
    times, looks = Times(), _resources(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for index in range(5000):
            times.add(index % SLICES, 1e-4 * index)
            looks.note(index % SLICES, 300.0, (20, 4))
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 2000


def _scores(rng: np.random.Generator, pictures: int, views: int) -> rate.Scores:
    """Views that resemble each other: nine tenths of the variance lie between pictures."""
    own = rng.normal(0, 3, (pictures, 1)) + rng.normal(0, 1, (pictures, views))
    return np.exp(own / 10**0.5)


def test_of_one_view_the_permutations_are_beta_binomial() -> None:
    rng = np.random.default_rng(1)
    ours, others = _scores(rng, 150, 1), _scores(rng, 150, 1)
    single = rate.single_view(ours[:, 0], others[:, 0], 0.1)
    assert rate.permutation_interval(ours, others, 0.1) == pytest.approx(
        (single.lower, single.upper), abs=1.5 / 150
    )


def test_the_interval_holds_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "DEALS", 100)
    rng = np.random.default_rng(2)
    inside, single, independent = 0, 0, 0
    for _ in range(100):
        ours, others = _scores(rng, 60, 4), _scores(rng, 60, 4)
        flags = others.ravel() > rate.threshold_for(ours, 0.1)
        found = rate.judge(ours, others, flags, 0.1)
        inside += found.inside
        single += found.single.lower <= found.single.flagged / 60 <= found.single.upper
        independent += found.independent.lower <= 0.1 <= found.independent.upper
    assert inside >= 88  # 95 in the mean, sigma 2.2
    assert single >= 88
    assert independent < 75  # takes four views for four pictures, and the threshold for exact


def test_a_doubled_rate_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "DEALS", 400)
    rng = np.random.default_rng(3)
    ours, others = _scores(rng, 1000, 2), _scores(rng, 1000, 2)
    threshold = rate.threshold_for(ours, 0.05)
    flags = (others > threshold).ravel()
    assert rate.judge(ours, others, flags, 0.05).inside
    falsely = flags.copy()
    falsely[np.flatnonzero(~flags)[: flags.sum()]] = True
    found = rate.judge(ours, others, falsely, 0.05)
    assert found.share == 2 * flags.mean()
    assert not found.inside
    # Scores that rose, in one of ten pictures, are seen as well.
    risen = others.copy()
    risen[:100] += threshold
    assert not rate.judge(ours, risen, (risen > threshold).ravel(), 0.05).inside


def test_pictures_are_dealt_into_halves(tmp_path: Path) -> None:
    folders = (tmp_path / "a", tmp_path / "b")
    for index in range(21):
        folders[index % 2].mkdir(exist_ok=True)
        (folders[index % 2] / f"{index}.png").touch()
    ours, others = rate.deal(folders, seed=0)
    assert (len(ours), len(others)) == (10, 11)
    assert sorted(ours + others) == sorted(tmp_path.rglob("*.png"))
    assert rate.deal(folders, seed=0) == (ours, others)
    assert rate.deal(folders, seed=1) != (ours, others)
    with pytest.raises(DatasetError, match="11 images give no rate"):
        rate.deal(folders[:1], seed=0)


def test_views_are_seeded(tmp_path: Path) -> None:
    paths = [save_scene(tmp_path / f"{index}.png", index) for index in range(2)]
    stream = Views(paths, 3, seed=0, threshold=0.5)
    frames = [stream.frame(index) for index in range(stream.distinct)]
    assert len({image.tobytes() for image, _ in frames}) == 6
    assert {threshold for _, threshold in frames} == {0.5}
    assert np.array_equal(stream.frame(5)[0], frames[5][0])
    numbers = rate.by_picture(np.arange(6.0), stream)
    assert numbers.tolist() == [[0, 2, 4], [1, 3, 5]]  # pictures by views


def test_a_view_resembles_its_picture() -> None:
    image = np.tile(np.arange(0, 240, 2, dtype=np.uint8)[:, None, None], (1, 160, 3))
    for seed in range(8):
        seen = view(image, np.random.default_rng(seed))
        assert seen.shape == image.shape
        assert np.abs(seen.astype(int) - image).max() < 70
        assert (np.diff(seen[:, 0, 0].astype(int)) >= 0).all()
    assert WINDOWS * 5 == SLICES

"""A real Ray of two workers on this machine: the results of one process, whatever dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.cluster.folders import Broken, Deadly
from tests.conftest import Inputs, assert_refused, contents, zmask
from tests.drawn import SIZE, save_scene
from zmask_export.calibrate import statistics
from zmask_export.cluster import pool
from zmask_export.cluster.pool import Cluster, connect
from zmask_export.data.images import ImageFolder
from zmask_export.errors import BackendError, BackendUnavailableError
from zmask_export.pipeline.calibrate import calibrate
from zmask_export.pipeline.network import NetworkOptions, OpenNetwork, open_network

pytestmark = pytest.mark.slow
BATCH = 1
SHARDS = 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'zmask-export[ray]'")
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        object_store_memory=200 << 20,
    )  # fmt: skip
    with connect("local") as opened:
        yield opened
    ray.shutdown()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many images as fill some shards, and one more."""
    folder = tmp_path_factory.mktemp("clean")
    for seed in range((SHARDS - 1) * statistics.shard_size(BATCH) + 1):
        save_scene(folder / f"{seed:02}.png", seed)
    return folder


@pytest.fixture(scope="module")
def opened(inputs: Inputs) -> OpenNetwork:
    options = NetworkOptions(model="icnet", preset=str(inputs.preset), random_weights=True)
    return open_network(options)


@pytest.fixture(scope="module")
def alone(opened: OpenNetwork, images: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The calibration file of one process."""
    out = tmp_path_factory.mktemp("alone") / "calibration.safetensors"
    calibrate(opened, ImageFolder(images, SIZE), out, batch=BATCH)
    return out.read_bytes()


def test_the_command_writes_the_same_file(
    cluster: Cluster, inputs: Inputs, images: Path, alone: bytes, out: Path
) -> None:
    given = (*inputs.random, "--images", images, "--batch", BATCH, "--out", out, "--ray", "--json")
    assert zmask("calibrate", *given).record["images"] == len(contents(images))
    assert out.read_bytes() == alone


def test_workers_use_the_threads_of_one_process(
    cluster: Cluster, opened: OpenNetwork, images: Path, out: Path
) -> None:
    """More than the cluster has processors; kernels for many threads round differently."""
    folder = ImageFolder(images, SIZE, limit=5)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        calibrate(opened, folder, out, batch=BATCH)
        many = out.read_bytes()
        calibrate(opened, folder, out, batch=BATCH, cluster=cluster)
    finally:
        torch.set_num_threads(before)
    assert out.read_bytes() == many


def test_an_interrupted_run_goes_on(
    cluster: Cluster, opened: OpenNetwork, images: Path, alone: bytes, out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What a cluster began one process ends, and the other way round."""
    monkeypatch.setattr(statistics, "SAVE_EVERY_S", -1.0)

    class Stop:
        """A reporter that interrupts after some images, in the middle of a shard."""

        def __init__(self, after: int) -> None:
            self.after = after
            self.told: list[int] = []

        def bar(self, label: str, total: int) -> Stop:
            return self

        def __enter__(self) -> Stop:
            return self

        def __exit__(self, *exc: object) -> None: ...

        def note(self, text: str) -> None: ...

        def __call__(self, done: int, note: str = "") -> None:
            self.told.append(done)
            if done >= self.after:
                raise KeyboardInterrupt

    folder = ImageFolder(images, SIZE)
    for after, used in ((3, cluster), (7, None), (11, cluster)):
        with pytest.raises(KeyboardInterrupt):
            calibrate(opened, folder, out, batch=BATCH, cluster=used, reporter=Stop(after))
    last = Stop(99)
    calibrate(opened, folder, out, batch=BATCH, cluster=cluster, reporter=last)
    assert last.told[0] >= 9
    assert out.read_bytes() == alone


def test_bad_images_are_treated_as_in_one_process(
    cluster: Cluster, inputs: Inputs, images: Path, out: Path
) -> None:
    folder = out.with_name("mixed")
    folder.mkdir()
    for name in contents(images)[:9]:
        os.link(images / name, folder / name)
    (folder / "05-bad.png").write_bytes(b"no image")
    given = (*inputs.random, "--images", folder, "--batch", BATCH)
    refused = zmask("calibrate", *given, "--out", out, "--ray")
    assert_refused(refused, 4, "05-bad.png is not an image", "--on-bad-image skip")
    files = {}
    for ray in ((), ("--ray",)):
        outcome = zmask("calibrate", *given, "--out", out, "--on-bad-image", "skip", *ray)
        assert "left out" in outcome.err
        files[ray] = out.read_bytes()
    assert files[()] == files[("--ray",)]


def test_a_fault_of_the_program_stays_one(
    cluster: Cluster, opened: OpenNetwork, images: Path
) -> None:
    with pytest.raises(ZeroDivisionError, match="a fault"):
        calibrate(opened, Broken(images, SIZE), batch=BATCH, cluster=cluster)


def test_workers_of_another_installation_are_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("only_here")
    exec("def add(a, b): return a + b", module.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(BackendUnavailableError, match=r"cannot load its work .*only_here"):
        list(cluster.map(module.add, 1, [2], fix=""))
    monkeypatch.setattr(pool, "__version__", "0.0.1")
    with pytest.raises(BackendUnavailableError, match=r"has version .*, not 0\.0\.1"):
        list(cluster.map(max, 1, [2], fix=""))


def test_a_bundle_is_measured_the_same(
    cluster: Cluster, inputs: Inputs, bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmask_export.evaluate.shards.SHARD", 1)
    given = ("evaluate", bundle, "--data", inputs.camvid, "--patch", inputs.patch, "--json")
    one, many = zmask(*given), zmask(*given, "--ray")
    assert many.record == one.record
    assert many.record["images"] == 2


def test_a_killed_worker_loses_nothing(
    cluster: Cluster, opened: OpenNetwork, images: Path, alone: bytes, out: Path
) -> None:
    marker = out.with_name("killed")
    folder = Deadly(images, SIZE, marker, "06.png", once=True)
    calibrate(opened, folder, out, batch=BATCH, cluster=cluster)
    assert int(marker.read_text()) != os.getpid()
    assert out.read_bytes() == alone
    assert contents(out.parent) == sorted([marker.name, out.name])


def test_images_that_always_kill_are_named(
    cluster: Cluster, opened: OpenNetwork, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "RETRIES", 0)
    folder = Deadly(images, SIZE, out.with_name("killed"), "06.png", once=False)
    with pytest.raises(BackendError, match=r"04\.png to 07\.png lost .* 2 of 2 runs"):
        calibrate(opened, folder, out, batch=BATCH, cluster=cluster)
    assert not out.exists()

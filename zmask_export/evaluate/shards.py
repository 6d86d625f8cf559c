"""A bundle measured on a Ray cluster, shard by shard: the table is that of one process.

Workers judge images one by one; the judgements are put together here in the images' order, before any
metric is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zmask_export.artifacts.manifest import Manifest
from zmask_export.cluster.pool import Cluster
from zmask_export.errors import BundleError
from zmask_export.evaluate.cells import Judged
from zmask_export.evaluate.scores import PASSES, judge_passes
from zmask_export.evaluate.task import Samples, Task
from zmask_export.runtime.protected import Protected, load

SHARD = 8
"""Images a shard; each is run in every pass."""


@dataclass(frozen=True)
class Job:
    """What workers need.

    Attributes:
        bundle: its folder, at the same path on every machine.
        manifest: of the bundle.
        samples: the labelled images, likewise.
        task: the engine's.
        patch: (3, h, w) in [0, 1].
        seed: of the patch's places.
        verify_key: public key that the bundle must be signed with, the bytes of its file.
    """

    bundle: Path
    manifest: Manifest
    samples: Samples[Any]
    task: Task[Any, Any]
    patch: Tensor
    seed: int
    verify_key: bytes | None = None


@dataclass(frozen=True)
class Shard:
    """Images ``start`` to ``stop`` (exclusive)."""

    start: int
    stop: int

    def __str__(self) -> str:
        return f"The images {self.start + 1} to {self.stop}"


def judge_on_cluster(
    cluster: Cluster, job: Job, *, on_image: Callable[[int], None] | None = None
) -> dict[str, list[Judged]]:
    """``judge_passes`` on a cluster's workers.

    Args:
        cluster: whose.
        job: what.
        on_image: told the number of images done, over all passes.

    Raises:
        BackendError: a shard lost its worker again and again.
        BundleError: a machine has another bundle at that path.
        PatchError, ImageError, DatasetError: see ``evaluate``.
    """
    count = len(job.samples)
    shards = [Shard(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]
    judged: dict[str, list[Judged]] = {}
    fix = "Give workers more memory, or leave out --ray to see the failure itself."
    for shard, found in zip(shards, cluster.map(_judge, job, shards, fix=fix), strict=True):
        for name, images in found.items():
            judged.setdefault(name, []).extend(images)
        if on_image is not None:
            on_image(PASSES * shard.stop)
    return judged


def _judge(job: Job, shard: Shard) -> dict[str, list[Judged]]:
    engine = _engine(job.bundle, job.verify_key)
    if engine.manifest != job.manifest:
        raise BundleError(
            f"The bundle {job.bundle} is another one on a worker's machine.",
            fix="Copy one bundle to the same path of every machine.",
        )
    picked = range(shard.start, shard.stop)
    return judge_passes(engine, job.samples, job.task, job.patch, seed=job.seed, picked=picked)


@functools.lru_cache(maxsize=1)
def _engine(bundle: Path, verify_key: bytes | None) -> Protected:
    """Opened once a worker, which has one processor."""
    return load(bundle, threads=1, verify_key=verify_key)

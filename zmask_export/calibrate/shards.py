"""Statistics measured on a Ray cluster, shard by shard, to the result of one pass.

A worker measures the batches of one shard; here they are merged in the order of the files, whichever
worker was first. So checkpoints, digest and result are those of :mod:`zmask_export.calibrate.statistics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from zmask_export.calibrate.statistics import Step, Walk, shard_size, steps
from zmask_export.cluster.pool import Cluster
from zmask_export.data.images import ImageFolder
from zmask_export.models.bare import BareNetwork


@dataclass(frozen=True)
class Shard:
    """Images of one shard.

    Attributes:
        folder: they alone.
        start: files before them in the whole folder.
        batch: images a forward pass.
        threads: of torch. The kernels that it takes, and so the last bits, depend on them.
    """

    folder: ImageFolder
    start: int
    batch: int
    threads: int

    def __str__(self) -> str:
        return f"The images {self.folder.names[0]} to {self.folder.names[-1]}"


def on_cluster(cluster: Cluster, bare: BareNetwork, folder: ImageFolder, batch: int) -> Walk:
    """Steps that are measured by a cluster's workers, which must find the images at the same paths.

    Each uses as many threads as this process would.

    Raises:
        BackendError: a shard lost its worker again and again.
        ImageError, WeightsError: see ``measure``.
    """

    def walk(start: int) -> Iterator[Step]:
        size = shard_size(batch)
        inner = range((start // size + 1) * size, len(folder), size)
        borders = [start, *inner, len(folder)] if start < len(folder) else []
        threads = torch.get_num_threads()
        shards = [Shard(folder.part(a, b), a, batch, threads) for a, b in pairwise(borders)]
        fix = "Give workers more memory or a smaller --batch; leave out --ray to see the failure itself."
        for found in cluster.map(_measure, bare, shards, threads=threads, fix=fix):
            yield from found

    return walk


def _measure(bare: BareNetwork, shard: Shard) -> list[Step]:
    torch.set_num_threads(shard.threads)
    return list(steps(bare, shard.folder, batch=shard.batch, offset=shard.start))

"""Small protected networks with whatever hides a number, and both forms of the defense around them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tests.small import (
    PREPROCESS,
    SIZE,
    as_float,
    fresh,
    random_calibration,
    reference,
    split_flags,
    tiny_images,
    to_bytes,
)
from zmask_export.artifacts.calibration import Calibration
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.runner import Arrays
from zmask_export.export.bare import export_bare
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.models.bare import BareNetwork
from zmask_export.precision.lower import lower
from zmask_export.spec import DefenseSpec, Policy, Precision, Size

IMAGES = as_float(tiny_images())
KERNELS: tuple[Size, ...] = ((6, 8), (3, 4))


def _plain(hidden: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(3, 8, 3, 2, 1), hidden, nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()]


NETWORKS: dict[str, Callable[[], list[nn.Module]]] = {
    "ReLU": lambda: _plain(nn.ReLU()),
    "ReLU6, which ends infinity": lambda: _plain(nn.ReLU6()),
    "maximum pooling": lambda: _plain(nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 1, 1))),
    "a first layer that skips pixels": lambda: [
        nn.Conv2d(3, 8, 1, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A network with its calibration and its exported graph."""

    bare: BareNetwork
    calibration: Calibration
    graph: bytes

    def with_calibration(self, calibration: Calibration) -> Subject:
        return Subject(self.bare, calibration, self.graph)

    def reference(self, images: NDArray[np.float32], policy: Policy) -> Arrays:
        return reference(self.bare, self.calibration, policy, torch.from_numpy(images))

    def runner(self, policy: Policy, precision: Precision = "fp32") -> OnnxRuntimeRunner:
        model = self.model(policy, precision)
        return OnnxRuntimeRunner(model, threads=1, precision=precision)

    def model(self, policy: Policy, precision: Precision = "fp32") -> bytes:
        lowered = lower(fresh(self.graph), precision, [IMAGES])
        return fuse(lowered, self.calibration, FuseOptions(policy)).to_bytes()

    def run(self, runner: OnnxRuntimeRunner, images: NDArray[np.float32]) -> Arrays:
        threshold = np.array([self.calibration.header.threshold], np.float32)
        return runner.run({"image": images, "threshold": threshold})


def subject(layers: list[nn.Module], defense: DefenseSpec | None = None) -> Subject:
    """A sequence of layers with its second and its fourth tapped, and a head."""
    torch.manual_seed(0)
    head = nn.Conv2d(16, 4, 1)
    bare = BareNetwork(nn.Sequential(*layers, head), PREPROCESS, {"first": "1", "last": "3"})
    defense = defense or DefenseSpec(
        shallow=("first",),
        deep=("first", "last"),
        shallow_kernels=KERNELS,
        deep_kernels=KERNELS[:1],
        grid=(12, 17),
    )
    calibration = random_calibration(bare, defense)
    calibration = split_flags(bare, calibration, torch.from_numpy(IMAGES))
    return Subject(bare, calibration, to_bytes(export_bare(bare, SIZE)))


@functools.cache
def named(name: str) -> Subject:
    """One of :data:`NETWORKS`, shared: not to be changed."""
    return made(name)


def made(name: str) -> Subject:
    """One of :data:`NETWORKS`, with seeded weights."""
    torch.manual_seed(0)
    return subject(NETWORKS[name]())


def agree(got: Arrays, expected: Arrays) -> None:
    """What is stated of every image: decisions equal; numbers close where a score is one."""
    np.testing.assert_array_equal(got["flag"], expected["flag"])
    np.testing.assert_array_equal(got["mask"], expected["mask"])
    np.testing.assert_allclose(got["score"], expected["score"], rtol=1e-3, atol=1e-5)
    known = np.isfinite(expected["score"])
    np.testing.assert_allclose(
        got["logits"][known], expected["logits"][known], rtol=1e-3, atol=1e-3
    )

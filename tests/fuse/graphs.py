"""Fused graphs of the tiny network, and how to run and compare them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import torch

from tests.small import (
    as_float,
    exported,
    fresh,
    random_calibration,
    split_flags,
    tiny_bare,
    tiny_defense,
    tiny_images,
)
from zmask_export.artifacts.calibration import Calibration
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.runner import Arrays
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.spec import Fill, Policy, Registration

BARE = tiny_bare()
IMAGES = as_float(tiny_images())
POLICIES = list(Policy)
PARTS = ("network/", "zscore/", "cascade/", "fusion/", "second_pass/", "gate/")


def mixed(
    registration: Registration = "aligned", fill: Fill = "black", corners: int = 0
) -> Calibration:
    """A calibration that flags some of IMAGES."""
    calibration = random_calibration(BARE, tiny_defense(registration, fill, corners))
    return split_flags(BARE, calibration, torch.from_numpy(IMAGES))


def fused(
    options: FuseOptions, calibration: Calibration | None = None, batch: int | None = None
) -> bytes:
    return fuse(fresh(exported(batch)), calibration or mixed(), options).to_bytes()


def run(model: bytes, images: np.ndarray, threshold: float) -> Arrays:
    limit = np.array([threshold], np.float32)
    return OnnxRuntimeRunner(model, threads=1).run({"image": images, "threshold": limit})


def check_equal(got: Arrays, expected: Arrays) -> None:
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        if name in ("flag", "mask"):
            np.testing.assert_array_equal(got[name], value, err_msg=name)
        else:
            np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=2e-5, err_msg=name)


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches and loop bodies too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from every_node(attribute.g)
